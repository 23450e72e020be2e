"""`tailrace tail`: print the events of a stream as they arrive."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from urllib.parse import urlsplit

from .command import Command, CommandError, UsageError

EPILOG = """\
Text is printed as it is, everything else as JSON on one line. On a terminal, control characters are made visible.
Notices and errors go to the standard error. Leaving a stream does not stop it. The exit status is 0 if the stream ended
or was stopped, or if --max or --until was reached; 1 if it failed, was refused or lost, or ended before --until; 2 if
the command line is wrong; 130 after Ctrl-C; 141 if the reader of the output has gone."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    _request(parser)
    _printing(parser)
    _reconnecting(parser)


def _request(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", type=_url, help="the stream: http://, https://, ws:// or wss://")
    add(
        "--after",
        metavar="CURSOR",
        type=_field,
        help="continue after the event with this id [default: where the server begins]",
    )
    add(
        "--header",
        metavar="'NAME: VALUE'",
        type=_header,
        action="append",
        default=[],
        help="send a header; may be repeated",
    )
    add(
        "--data",
        metavar="BODY",
        type=_body,
        help="send a body: the text itself, @FILE, or - for the standard input; JSON is sent as application/json, and"
        " '' makes an empty POST",
    )
    add("--method", type=_method, help="the request method [default: POST with --data, else GET]")
    add(
        "--idempotency-key",
        metavar="KEY",
        type=_field,
        help="name the request, so that it can be repeated before it is answered and still starts only one stream",
    )


def _printing(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--json", action="store_true", help="print each event as an object with id, event and data")
    add("--max", metavar="N", type=_positive, help="end after this many events")
    add("--until", metavar="NAME", help='end after an event with this name, or an object with this "type"')
    add("--quiet", action="store_true", help="print errors only, no notices")


def _reconnecting(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--retries",
        metavar="N",
        type=_number,
        help="how many attempts in a row may fail, at most 30 s apart: 300 outlast an hour [default: 8]",
    )
    add("--no-reconnect", dest="retries", action="store_const", const=0, help="the same as --retries 0")
    add(
        "--idle",
        metavar="SECONDS",
        type=_seconds,
        default=45.0,
        help="reconnect if the server is silent for this long [default: 45]",
    )
    add("--allow-gaps", action="store_true", help="reconnect even if the events have no ids to continue from")
    add("--max-bytes", metavar="N", type=_positive, help="the largest event to accept [default: 1048576]")


def run(options: Namespace) -> int:
    """Follow the stream to its end, and return the exit status."""
    if sys.stdout is None:
        raise CommandError("the standard output is closed")
    try:
        from .follow import follow
    except ModuleNotFoundError as error:
        raise UsageError(
            f"needs the extra client, but there is no {error.name}: pip install 'tailrace[client]'"
        ) from None
    return follow(options)


TAIL = Command("tail", "Print the events of a stream as they arrive.", configure, run)


# The values of options. Each function turns a text into a value, or raises ArgumentTypeError

_SCHEMES = ("http", "https", "ws", "wss")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER = re.compile(rf"({_TOKEN.pattern}):[ \t]*([\t\x20-\x7e]*)")
_FIELD = re.compile(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?")
_PRINTABLE = re.compile(r"[^\x00-\x20\x7f]+")

_OF_THE_CONNECTION = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"})
_OF_THE_HANDSHAKE = re.compile(r"upgrade|sec-websocket-.*")

_WITHOUT_EVENTS = frozenset({"CONNECT", "HEAD"})


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:  # the port or the IPv6 address is malformed
        right = False
    if not (right and _PRINTABLE.fullmatch(value)):
        raise ArgumentTypeError(f"expected an address with http://, https://, ws:// or wss://, but got {value!r}")
    return value


def _header(value: str) -> tuple[str, str]:
    """Return a header's name in lower case, and its value."""
    if (match := _HEADER.fullmatch(value)) is None:
        raise ArgumentTypeError(f"expected 'Name: value' in ASCII, but got {value!r}")
    name = match[1].lower()
    if name in _OF_THE_CONNECTION or _OF_THE_HANDSHAKE.fullmatch(name):
        raise ArgumentTypeError(
            f"expected a header of the request, but got {match[1]}, which belongs to the connection"
        )
    return name, match[2].rstrip()


def _field(value: str) -> str:
    """Return the value of a header."""
    if _FIELD.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected printable ASCII, but got {value!r}")
    return value


def _method(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected a method like POST, but got {value!r}")
    if value.upper() in _WITHOUT_EVENTS:
        raise ArgumentTypeError(f"expected a method that is answered with events, but got {value.upper()}")
    return value.upper()


def _body(value: str) -> str:
    if value == "@":
        raise ArgumentTypeError("expected @FILE, but got @ alone")
    return value


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ArgumentTypeError(f"expected a whole number, but got {value!r}")
    return int(value)


def _positive(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ArgumentTypeError(f"expected a whole number above 0, but got {value!r}")
    return int(value)


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise ArgumentTypeError(f"expected seconds above 0, but got {value!r}")
    return number

"""`tailrace tail`: the events of a stream, as they arrive."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from .command import Command, CommandError, UsageError
from .tailing import values

EPILOG = """\
Text is printed as it is (what would control a terminal is made visible there), all else as JSON in one line. Notices
and errors are on the standard error. Leaving a stream does not stop it. The exit status is 0 when the stream has ended
or was stopped, or --max or --until is reached; 1 when it failed, was refused or is lost, or ended before --until; 2
when the command line is wrong; 130 after Ctrl-C; 141 when nobody reads the output any more."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    _ask(parser)
    _print(parser)
    _reconnect(parser)


def _ask(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", type=values.url, help="http://, https://, ws:// or wss://, and where the stream is")
    add(
        "--after",
        metavar="CURSOR",
        type=values.field,
        help="go on after the event with this id [default: where the server begins]",
    )
    add(
        "--header",
        metavar="'NAME: VALUE'",
        type=values.header,
        action="append",
        default=[],
        help="send a header; may be repeated",
    )
    add(
        "--data",
        metavar="BODY",
        type=values.body,
        help="send a body: the text itself, @FILE, or - for the standard input; JSON is sent as application/json, and"
        " '' as an empty POST",
    )
    add("--method", type=values.method, help="how to ask [default: POST with --data, else GET]")
    add(
        "--idempotency-key",
        metavar="KEY",
        type=values.field,
        help="name the request, so that it may be sent again before it was answered and starts only one stream",
    )


def _print(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--json", action="store_true", help="print each event as an object with id, event and data")
    add("--max", metavar="N", type=values.count, help="end after so many events")
    add("--until", metavar="NAME", help='end after an event of this name, or an object with this "type"')
    add("--quiet", action="store_true", help="print no notices, only errors")


def _reconnect(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--retries",
        metavar="N",
        type=values.number,
        help="how often to connect again, in a row and up to 30 s apart: 300 outlast an hour [default: 8]",
    )
    add("--no-reconnect", dest="retries", action="store_const", const=0, help="the same as --retries 0")
    add(
        "--idle",
        metavar="SECONDS",
        type=values.seconds,
        default=45.0,
        help="connect again when the server is silent for so long [default: 45]",
    )
    add("--allow-gaps", action="store_true", help="connect again also when the events have no ids to go on after")
    add("--max-bytes", metavar="N", type=values.count, help="how large an event may be [default: 1048576]")


def run(options: Namespace) -> int:
    """Follow the stream; the exit status."""
    if sys.stdout is None:
        raise CommandError("the standard output is closed")
    try:
        from .tailing.follower import follow
    except ModuleNotFoundError as error:
        raise UsageError(
            f"needs the extra client, but there is no {error.name}: pip install 'tailrace[client]'"
        ) from None
    return follow(options)


TAIL = Command("tail", "Print the events of a stream as they arrive.", configure, run)

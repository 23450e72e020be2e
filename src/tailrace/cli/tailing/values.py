"""What the options of `tailrace tail` may be. Each function makes a value of a text, or an ArgumentTypeError."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from urllib.parse import urlsplit

SOCKETS = ("ws", "wss")
_SCHEMES = ("http", "https", *SOCKETS)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e]*)")
_FIELD = re.compile(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?")
_PRINTABLE = re.compile(r"[^\x00-\x20\x7f]+")

_OF_THE_CONNECTION = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"})
_OF_THE_HANDSHAKE = re.compile(r"upgrade|sec-websocket-.*")

_WITHOUT_EVENTS = frozenset({"CONNECT", "HEAD"})


def url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        right = False
    if not (right and _PRINTABLE.fullmatch(value)):
        raise ArgumentTypeError(f"expected an address with http://, https://, ws:// or wss://, but got {value!r}")
    return value


def header(value: str) -> tuple[str, str]:
    """A name in lower case, and what it is."""
    if (match := _HEADER.fullmatch(value)) is None:
        raise ArgumentTypeError(f"expected 'Name: value' in ASCII, but got {value!r}")
    name = match[1].lower()
    if name in _OF_THE_CONNECTION or _OF_THE_HANDSHAKE.fullmatch(name):
        raise ArgumentTypeError(f"expected a header of the request, but got {match[1]}, which is of the connection")
    return name, match[2].rstrip()


def field(value: str) -> str:
    """What is sent in a header of its own."""
    if _FIELD.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected printable ASCII, but got {value!r}")
    return value


def method(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected a method like POST, but got {value!r}")
    if value.upper() in _WITHOUT_EVENTS:
        raise ArgumentTypeError(f"expected a method that is answered with events, but got {value.upper()}")
    return value.upper()


def body(value: str) -> str:
    if value == "@":
        raise ArgumentTypeError("expected @FILE, but got @ alone")
    return value


def number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ArgumentTypeError(f"expected a whole number, but got {value!r}")
    return int(value)


def count(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ArgumentTypeError(f"expected a whole number above 0, but got {value!r}")
    return int(value)


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise ArgumentTypeError(f"expected seconds above 0, but got {value!r}")
    return number

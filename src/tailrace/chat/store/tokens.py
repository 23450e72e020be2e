"""Tokens of pages: the place of the last row, opaque to clients."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from struct import Struct
from struct import error as StructError

from .errors import BadToken

_NUMBER = Struct(">q")
_TIME = Struct(">d")


def turn_token(number: int) -> str:
    return _spell(_NUMBER.pack(number))


def turn_place(token: str) -> int:
    """The number in a token. BadToken."""
    try:
        (number,) = _NUMBER.unpack(_read(token))
    except (ValueError, StructError) as error:
        raise BadToken(token) from error
    return int(number)


def session_token(updated: float, session_id: str) -> str:
    return _spell(_TIME.pack(updated) + session_id.encode())


def session_place(token: str) -> tuple[float, str]:
    """The time and the session's id in a token. BadToken."""
    try:
        place = _read(token)
        (updated,) = _TIME.unpack_from(place)
        session_id = place[_TIME.size :].decode()
    except (ValueError, StructError) as error:
        raise BadToken(token) from error
    if "\0" in session_id:  # which PostgreSQL refuses
        raise BadToken(token)
    return updated, session_id


def _spell(place: bytes) -> str:
    return urlsafe_b64encode(place).decode().rstrip("=")


def _read(token: str) -> bytes:
    return urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))

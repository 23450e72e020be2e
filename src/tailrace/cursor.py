"""Cursors: opaque, URL-safe tokens for a place in a log."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from .errors import CursorError

_EXPECTED = "<stream>.<epoch>.<offset>"
_STREAM = r"[A-Za-z0-9_~-]{1,128}"
# 15 digits stay below 2**53, so that JavaScript holds every offset exactly (ECMA-262, Number.MAX_SAFE_INTEGER).
_TOKEN = re.compile(
    rf"({_STREAM})\.([A-Za-z0-9_-]{{1,32}})\.(0|[1-9][0-9]{{0,14}})(?:~([A-Za-z0-9_-]{{4,8}}))?(\.end)?", re.ASCII
)
_PLAIN = re.compile(_STREAM, re.ASCII)

STREAM_ID_PATTERN = "[A-Za-z0-9_-]{22}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after the entry at `offset`, or before the first entry if `offset` is 0.

    `ended` is True if the reader also has the outcome, and so needs nothing more. `tag` tells two entries at one offset
    apart. Only a store that can lose entries, and write others in their place, sets it.
    """

    stream: str
    epoch: str
    offset: int
    ended: bool = False
    tag: str = ""

    @classmethod
    def parse(cls, token: str) -> Cursor:
        """Read a token. Raise CursorError if it is not a cursor."""
        if (match := _TOKEN.fullmatch(token)) is None:
            raise CursorError(token, _EXPECTED)
        stream, epoch, offset, tag, ended = match.groups()
        return cls(stream, epoch, int(offset), ended is not None, tag or "")

    def __str__(self) -> str:
        tag = f"~{self.tag}" if self.tag else ""
        return f"{self.stream}.{self.epoch}.{self.offset}{tag}{'.end' if self.ended else ''}"


def is_cursor(token: str) -> bool:
    """Tell whether a token is a cursor."""
    return _TOKEN.fullmatch(token) is not None


ONLY_EPOCH = "0"
"""The epoch of a log whose random name is never used again. It makes each cursor seven bytes shorter."""


def new_epoch() -> str:
    """Return a name for one incarnation of a log: 36 random bits."""
    return secrets.token_urlsafe(5)[:6]


def new_stream_id() -> str:
    """Return an unguessable name for a stream: 128 random bits in 22 URL-safe characters."""
    return secrets.token_urlsafe(16)


def stream_token(name: str) -> str:
    """Return a log's name in its cursors: the last path segment, or a digest of it if it is not URL-safe."""
    last = name.rpartition("/")[2]
    if _PLAIN.fullmatch(last):
        return last
    return urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:16]).rstrip(b"=").decode()

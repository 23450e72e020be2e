"""How to read on, in the words of a shell."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from shlex import quote

from ...cursor import Cursor
from ...errors import CursorError

# These say what is asked, which is not to be asked again: the stream that it has started is somewhere else.
OF_THE_REQUEST = ("url", "after", "data", "method", "idempotency_key")

_FLAGS = ("json", "allow_gaps", "quiet")
_VALUES = ("max", "until", "retries", "idle", "max_bytes")

# All others may be secret, and what is said here may be kept in a log.
_PUBLIC = frozenset({"accept", "accept-language", "user-agent"})
_HIDDEN = "…"


class WayOn:
    """From any place of a stream, as far as it is known where it is."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._address: str = options.url
        self._asks_once = options.data is not None or options.method not in (None, "GET")

    def note(self, address: str | None) -> None:
        """Where the stream is, if its server has said so."""
        self._address = address or self._address

    def after(self, token: str | None) -> str | None:
        """What to do in order to go on there; None if there is nothing."""
        cursor = _read(token)
        if token is None or (cursor is not None and cursor.ended):
            return None
        # It may begin with a dash, so it stands behind =.
        after = f"--after={quote(token)}"
        if self._asks_once and self._address != self._options.url:
            return f"go on with: {' '.join(['tailrace tail', quote(self._address), *self._repeated(), after])}"
        if self._asks_once and cursor is None:
            return None  # what the server would make of it but a new stream, nobody knows
        return f"go on with {after}"

    def _repeated(self) -> Iterator[str]:
        options = self._options
        for name in _FLAGS:
            if getattr(options, name):
                yield _option(name)
        for name in _VALUES:
            if (value := getattr(options, name)) != options.parser.get_default(name):
                yield f"{_option(name)}={quote(str(value))}"
        for name, value in options.header:
            if not name.startswith("content-"):
                yield f"--header {quote(f'{name}: {value if name in _PUBLIC else _HIDDEN}')}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read(token: str | None) -> Cursor | None:
    try:
        return Cursor.parse(token or "")
    except CursorError:
        return None

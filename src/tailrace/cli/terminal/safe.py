"""Text of others, made harmless for a terminal without changing what can be read of it."""

from __future__ import annotations

_REPLACEMENT = "\ufffd"


def _harmless() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20)}  # the pictures of the controls: ␛ is no escape
    del table[ord("\t")], table[ord("\n")]
    table[0x7F] = "\u2421"
    table |= dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT)  # some terminals take them for escapes, too
    # These reverse what is read, so that it is not what is there.
    table |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], _REPLACEMENT)
    table |= dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT)  # halves of characters, which no file can take
    table |= dict.fromkeys((0x2028, 0x2029), "\n")
    return table


_TABLE = _harmless()
_LINE = {**_TABLE, ord("\t"): " ", ord("\n"): " ", 0x2028: " ", 0x2029: " "}

# What JSON need not spell, but some terminals obey.
_JSON = {code: f"\\u{code:04x}" for code in _TABLE if code >= 0x7F}


def safe(text: str) -> str:
    """The text with its lines and tabs, but with nothing that a terminal would obey."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)


def safe_line(text: str) -> str:
    """The same on one line."""
    return text.translate(_LINE)


def safe_json(line: str) -> str:
    """JSON, with escapes in place of what is harmful, so that its values stay what they are."""
    return line.translate(_JSON)


class SafeStream:
    """The same for a text that comes in pieces."""

    def __init__(self) -> None:
        self._after_return = False

    def feed(self, piece: str) -> str:
        if self._after_return:
            # Its line break was given when the first half came.
            piece = piece.removeprefix("\n") if piece else piece
        self._after_return = piece.endswith("\r") or (self._after_return and not piece)
        return safe(piece)

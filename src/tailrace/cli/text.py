"""Text for a terminal: make other people's text harmless, and format numbers and times."""

from __future__ import annotations

from datetime import UTC, datetime

_REPLACEMENT = "\ufffd"


def _harmless() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20)}  # control pictures, such as ␛ for an escape
    del table[ord("\t")], table[ord("\n")]
    table[0x7F] = "\u2421"
    table |= dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT)  # C1 controls: some terminals obey them like escapes
    # Bidirectional controls can make a text look different from its contents (Unicode TR 36, section 3.5).
    table |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], _REPLACEMENT)
    table |= dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT)  # lone surrogates, which UTF-8 cannot encode
    table |= dict.fromkeys((0x2028, 0x2029), "\n")
    return table


_TABLE = _harmless()
_LINE = {**_TABLE, ord("\t"): " ", ord("\n"): " ", 0x2028: " ", 0x2029: " "}

# JSON may contain these unescaped, but some terminals obey them.
_JSON = {code: f"\\u{code:04x}" for code in _TABLE if code >= 0x7F}


def safe(text: str) -> str:
    """Return a text with its lines and tabs, but without characters that control a terminal."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)


def safe_line(text: str) -> str:
    """Return a text on one line, without characters that control a terminal."""
    return text.translate(_LINE)


def safe_json(line: str) -> str:
    """Return a line of JSON with the same values, in which characters that control a terminal are escaped."""
    return line.translate(_JSON)


class SafeStream:
    """Makes a text that arrives in pieces harmless."""

    def __init__(self) -> None:
        self._after_return = False

    def feed(self, piece: str) -> str:
        if self._after_return:
            # The carriage return before this line feed has already become a line break.
            piece = piece.removeprefix("\n") if piece else piece
        self._after_return = piece.endswith("\r") or (self._after_return and not piece)
        return safe(piece)


# Numbers and times


def duration(seconds: float) -> str:
    """Return seconds as `4.2 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    if seconds < 59.95:  # larger numbers would be rounded to 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds + 0.05), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 message`, `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment(at: datetime) -> str:
    """Return a time in the user's own time zone."""
    return in_zone(at).astimezone().strftime("%Y-%m-%d %H:%M")


def in_zone(at: datetime) -> datetime:
    """Return a time with its time zone, or with UTC if it has none."""
    return at.replace(tzinfo=at.tzinfo or UTC)


def short(session_id: str) -> str:
    """Return the beginning of an id, which is enough for people."""
    return session_id[:8]

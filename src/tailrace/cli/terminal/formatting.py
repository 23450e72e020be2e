"""Numbers, times and tables as words for the one who reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap

ROOM = 20
"""Columns that a value of several lines wants beside its name; with fewer it stands below it."""


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 59.95:  # what is more would be rounded to 60.0
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
    """`1 message`, `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment(at: datetime) -> str:
    """A time in the user's own."""
    return in_zone(at).astimezone().strftime("%Y-%m-%d %H:%M")


def in_zone(at: datetime) -> datetime:
    """A time with its zone, which is UTC if none is said."""
    return at.replace(tzinfo=at.tzinfo or UTC)


def aligned(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Lines of two columns, names and values. A word that is longer than a line, as an id, stays whole."""
    column = 4 + max(len(name) for name, _ in rows)
    for name, value in rows:
        label = f"  {name}".ljust(column)
        longest = max(map(len, value.split()), default=0)
        if column + len(value) <= width or width - column >= max(ROOM, longest):
            yield from _wrapped(value, width, label, " " * column) or [label.rstrip()]
        else:
            indent = " " * min(4, max(0, width - longest))
            yield label.rstrip()
            yield from _wrapped(value, width, indent, indent)


def _wrapped(value: str, width: int, first: str, others: str) -> list[str]:
    return wrap(
        value,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )

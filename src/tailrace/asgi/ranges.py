"""The conditions and ranges of a request for a file (RFC 9110, sections 13 and 14), without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from secrets import token_hex
from typing import NamedTuple, TypeAlias

from starlette.datastructures import Headers

Range: TypeAlias = tuple[int, int]
"""The offset of the first byte, and the offset after the last one."""

MAX_RANGES = 100
"""The most ranges of one request. A request for more gets the whole file, because each range costs a read."""

# No file needs an offset of a hundred digits, and `int` refuses thousands.
_RANGE = re.compile(r"([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100})")
_ETAG = re.compile(r'(?:W/)?"[^"]*"')

# The three forms that a recipient must accept, and no others (RFC 9110, section 5.6.7). The last one has no zone.
_DATE = re.compile(
    r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of one version of a file (RFC 9110, section 8.8).

    Several versions may have the same `last_modified`, which is in whole seconds. If the file is `settled`, any later
    version has a later one.
    """

    etag: str
    last_modified: str
    settled: bool

    def verdict(self, asked: Headers) -> int | None:
        """Return 412 or 304 if the preconditions of a GET or HEAD ask for it (RFC 9110, section 13.2.2)."""
        if tags := _tags(asked, "if-match"):
            if not self._matches_strongly(tags):
                return 412
        elif self._is_newer(asked.get("if-unmodified-since")) is True:
            return 412
        if tags := _tags(asked, "if-none-match"):
            return 304 if self._matches_weakly(tags) else None
        return 304 if self._is_newer(asked.get("if-modified-since")) is False else None

    def allow_range(self, condition: str | None) -> bool:
        """Tell whether the client's part, as If-Range names it, is of this very version."""
        if condition is None:
            return True
        if _ETAG.fullmatch(condition):
            return self._matches_strongly([condition])
        date = _seconds(condition)
        return self.settled and date is not None and date == _seconds(self.last_modified)

    def _matches_strongly(self, tags: Sequence[str]) -> bool:
        return tags == ["*"] or (not self.etag.startswith("W/") and self.etag in tags)

    def _matches_weakly(self, tags: Sequence[str]) -> bool:
        return tags == ["*"] or self.etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags)

    def _is_newer(self, date: str | None) -> bool | None:
        """Return the time of a date, or None if it is missing or malformed. Such conditions are ignored."""
        since, modified = _seconds(date), _seconds(self.last_modified)
        return None if since is None or modified is None else modified > since


def _tags(asked: Headers, name: str) -> list[str]:
    """Return a header's entity tags. A header that has none names a tag that no file has."""
    if not (fields := asked.getlist(name)):
        return []
    text = ", ".join(fields).strip()
    return ["*"] if text == "*" else _ETAG.findall(text) or [""]


def _seconds(date: str | None) -> int | None:
    """Return the time of an HTTP date, or None if it is malformed."""
    if date is None or not _DATE.fullmatch(date):
        return None
    try:
        return int(parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp())
    except ValueError:  # there is no such month, day or hour
        return None


def parse_ranges(header: str, size: int) -> list[Range] | None:
    """Return the ranges of a file of `size` bytes, in the order in which they were asked for.

    The list is empty if the file has none of them. None stands for the whole file: the header is of another unit, which
    RFC 9110 (section 14.2) says to ignore, or it is malformed or too long, or the file is empty.
    """
    unit, _, given = header.partition("=")
    parts = [part for each in given.split(",") if (part := each.strip(" \t"))]
    matches = [match for part in parts if (match := _RANGE.fullmatch(part))]
    if unit.strip().lower() != "bytes" or len(matches) != len(parts) or not 0 < len(parts) <= MAX_RANGES or size == 0:
        return None
    ranges = []
    for first, last, suffix in (match.groups() for match in matches):
        start = int(first) if first else max(size - int(suffix), 0)
        end = int(last) + 1 if last else size
        if last and end <= start:
            return None
        ranges.append((start, min(end, size)))
    return _coalesce(each for each in ranges if each[0] < size)


def _coalesce(ranges: Iterable[Range]) -> list[Range]:
    """Join ranges that overlap or touch, so that no byte is sent twice. A joined range takes the first one's place."""
    joined: list[tuple[int, int, int]] = []
    for start, end, place in sorted((start, end, place) for place, (start, end) in enumerate(ranges)):
        if joined and start <= joined[-1][1]:
            before = joined[-1]
            joined[-1] = (before[0], max(before[1], end), min(before[2], place))
        else:
            joined.append((start, end, place))
    return [(start, end) for start, end, _ in sorted(joined, key=lambda each: each[2])]


def content_range(part: Range, size: int) -> str:
    return f"bytes {part[0]}-{part[1] - 1}/{size}"


class Body(NamedTuple):
    """A body: some ranges of a file, each after bytes of its own, and then `end`."""

    parts: Sequence[tuple[bytes, Range]]
    end: bytes = b""

    @property
    def length(self) -> int:
        return sum(len(head) + end - start for head, (start, end) in self.parts) + len(self.end)


def multipart(ranges: Iterable[Range], size: int, content_type: str) -> tuple[str, Body]:
    """Return the content type and the body of a response with several ranges (RFC 9110, section 14.6)."""
    boundary = token_hex(16)

    def heads() -> Iterator[tuple[bytes, Range]]:
        for each in ranges:
            fields = f"Content-Type: {content_type}\r\nContent-Range: {content_range(each, size)}"
            yield f"\r\n--{boundary}\r\n{fields}\r\n\r\n".encode("latin-1"), each

    return f"multipart/byteranges; boundary={boundary}", Body([*heads()], f"\r\n--{boundary}--\r\n".encode())

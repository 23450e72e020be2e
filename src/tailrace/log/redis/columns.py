"""Batches in a row, in columns."""

from __future__ import annotations

from typing import Self

from ...events import Entries
from ..base import fitting
from .frames import NO_TAG, Batch


class Columns:
    """Consecutive batches.

    `base` is the offset before the first entry and `floor` the bytes of JSON up to it. `top` and `cum` are those of the
    last entry, and `tag` is that of its batch.
    """

    __slots__ = ("_events", "_json", "_tags", "base", "cum", "floor", "tag", "top")

    def __init__(self, base: int, tag: bytes = NO_TAG, cum: int = 0) -> None:
        """Begin after the batch that ends at `base`, which has a tag and a sum of bytes."""
        self.base = self.top = base
        self.floor = self.cum = cum
        self.tag = tag
        self._json: list[bytes] = []
        self._events: dict[int, str] = {}
        self._tags = [tag]  # of each entry, after that of the base

    @classmethod
    def before(cls, batch: Batch) -> Self:
        """Begin at the place before a batch."""
        return cls(batch.start, batch.prev, batch.cum - sum(map(len, batch.json)))

    @classmethod
    def of(cls, batches: list[Batch]) -> Self:
        """Hold batches that follow one another."""
        columns = cls.before(batches[0])
        for batch in batches:
            columns.add(batch)
        return columns

    @property
    def size(self) -> int:
        """The bytes of JSON held."""
        return self.cum - self.floor

    def follows(self, batch: Batch) -> bool:
        """Tell whether a batch is the next one."""
        return batch.prev == self.tag and batch.top - len(batch.json) == self.top

    def add(self, batch: Batch) -> None:
        """Hold the next batch."""
        if batch.names is not None:
            named = zip(range(self.top + 1, batch.top + 1), batch.names, strict=True)
            self._events.update((offset, name.decode()) for offset, name in named if name)
        self._json += batch.json
        self._tags += [batch.tag] * len(batch.json)
        self.top, self.tag, self.cum = batch.top, batch.tag, batch.cum

    def tag_at(self, offset: int) -> bytes | None:
        """Return the tag of the batch that holds an offset, or None if it is not held."""
        if self.base <= offset <= self.top:
            return self._tags[offset - self.base]
        return None

    def slice(self, after: int, limit: int, size: int) -> Entries:
        """Return entries after an offset: at most `limit`, and at most `size` bytes of JSON unless it is one entry."""
        start = after - self.base
        if (larger := self.size > size) and limit > 1:
            # Estimate by the average size: slicing many entries too many costs more than reading in two steps.
            limit = min(limit, max(size * len(self._json) // self.size, 1))
        json = self._json[start : start + limit]
        if larger and len(json) > 1 and sum(map(len, json)) > size:
            json = json[: fitting(json, size)]
        offsets = range(after + 1, after + 1 + len(json))
        tags = self._tags[start + 1 : start + 1 + len(json)]
        if not self._events:
            return Entries(offsets, json, tags=tags)
        events = {offset: self._events[offset] for offset in offsets if offset in self._events}
        return Entries(offsets, json, events, tags)

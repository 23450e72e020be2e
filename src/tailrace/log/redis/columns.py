"""Batches in a row, in columns: what a mirror holds, and what it has fetched."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from ...events import Entries
from ..base import fitting
from .frames import NO_TAG, Batch

MOST_BATCHES = 8192
"""The most batches to hold. Each takes some 150 bytes besides its JSON, which matters if that is a byte or two."""


class Columns:
    """Consecutive batches. `base` is the offset before the first entry, and `top` that of the last."""

    __slots__ = ("_cums", "_ends", "_events", "_json", "_tags", "base", "cum", "tag", "top")

    def __init__(self, base: int, tag: bytes = NO_TAG, cum: int = 0) -> None:
        """Begin behind the batch that ends at `base`, which has a tag and a sum of bytes."""
        self.base = self.top = base
        self.tag = tag  # of the newest batch
        self.cum = cum
        self._json: list[bytes] = []
        self._events: dict[int, str] = {}
        self._tags = [tag]  # of each entry, behind that of the base
        # Of each place between two batches, the first being the base: its offset and the bytes before it.
        self._ends = [base]
        self._cums = [cum]

    @classmethod
    def of(cls, batches: list[Batch]) -> Columns:
        """Hold batches that follow one another."""
        first = batches[0]
        columns = cls(first.start, first.prev, first.cum - sum(map(len, first.json)))
        for batch in batches:
            columns.add(batch)
        return columns

    @property
    def size(self) -> int:
        """The bytes of JSON held."""
        return self.cum - self._cums[0]

    @property
    def batches(self) -> int:
        """The number of batches held."""
        return len(self._ends) - 1

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
        self._ends.append(batch.top)
        self._cums.append(batch.cum)

    def keep(self, bound: int) -> None:
        """Drop the oldest batches if they exceed `bound` bytes or MOST_BATCHES by an eighth. The newest stays.

        Deleting from the front of a list moves the rest, so it is done seldom.
        """
        # Most calls end here, so it calls nothing.
        if self.cum - self._cums[0] > bound + bound // 8 or len(self._ends) > MOST_BATCHES + MOST_BATCHES // 8:
            dropped = max(bisect_left(self._cums, self.cum - bound), self.batches - MOST_BATCHES)
            dropped = min(dropped, self.batches - 1)
            base = self._ends[dropped]
            if self._events:
                for offset in range(self.base + 1, base + 1):
                    self._events.pop(offset, None)
            del self._json[: base - self.base], self._tags[: base - self.base]
            del self._ends[:dropped], self._cums[:dropped]
            self.base = base

    def tag_at(self, offset: int) -> bytes | None:
        """Return the tag of the batch that holds an offset, or None if it is not held."""
        if self.base <= offset <= self.top:
            return self._tags[offset - self.base]
        return None

    def bytes_after(self, offset: int) -> int:
        """Return how many bytes are behind the last batch that ends at an offset or before it."""
        return self.cum - self._cums[max(bisect_right(self._ends, offset) - 1, 0)]

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

"""The part of a stream that a mirror holds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from .columns import Columns
from .frames import NO_TAG, Batch

HELD_BYTES = 1 << 20
"""How many bytes of JSON a mirror holds. Older entries are fetched for each reader that needs them."""

HELD_BATCHES = 8192
"""The most batches that a mirror holds. Each takes some 150 bytes besides its JSON, which may be a byte or two."""


class Held(Columns):
    """The newest batches, within HELD_BYTES and HELD_BATCHES, but at least one.

    Deleting from the front of a list moves the rest, so it is done once a bound is exceeded by an eighth.
    """

    __slots__ = ("_cums", "_ends", "_full")

    def __init__(self, base: int, tag: bytes = NO_TAG, cum: int = 0) -> None:
        super().__init__(base, tag, cum)
        # The offset of each place between two batches, and the bytes before it. The first place is the base.
        self._ends = [base]
        self._cums = [cum]
        self._full = cum + HELD_BYTES + HELD_BYTES // 8

    def add(self, batch: Batch) -> None:
        super().add(batch)
        self._ends.append(self.top)
        self._cums.append(self.cum)
        if self.cum > self._full or len(self._ends) > HELD_BATCHES + HELD_BATCHES // 8:
            self._drop()

    def add_entry(self, tag: bytes, json: bytes) -> None:
        """Hold the next batch, which is one entry without a name. Takes a quarter of the time of `add`."""
        self.tag = tag
        self.top += 1
        self.cum += len(json)
        self._json.append(json)
        self._tags.append(tag)
        self._ends.append(self.top)
        self._cums.append(self.cum)
        if self.cum > self._full or len(self._ends) > HELD_BATCHES + HELD_BATCHES // 8:
            self._drop()

    def bytes_after(self, offset: int) -> int:
        """Return how many bytes are behind the last batch that ends at an offset or before it."""
        return self.cum - self._cums[max(bisect_right(self._ends, offset) - 1, 0)]

    def _drop(self) -> None:
        """Drop the oldest batches, down to the bounds."""
        batches = len(self._ends) - 1
        dropped = max(bisect_left(self._cums, self.cum - HELD_BYTES), batches - HELD_BATCHES)
        dropped = min(dropped, batches - 1)
        base = self._ends[dropped]
        if self._events:
            for offset in range(self.base + 1, base + 1):
                self._events.pop(offset, None)
        del self._json[: base - self.base], self._tags[: base - self.base]
        del self._ends[:dropped], self._cums[:dropped]
        self.base, self.floor = base, self._cums[0]
        self._full = self.floor + HELD_BYTES + HELD_BYTES // 8

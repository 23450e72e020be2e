"""The content of a stream's keys, as LOAD and CREATE return it."""

from __future__ import annotations

from typing import Any

from .frames import Batch, Facts, parse_batch


class Loaded:
    """The meta of a stream, and its newest batches after the place of a mirror.

    `top`, `tag` and `cum` are those of the last entry, even if the entries themselves are lost.
    """

    __slots__ = ("_at", "_entries", "cum", "meta", "tag", "top")

    def __init__(self, answer: list[Any]) -> None:
        _, flat, self._at, newest_first = answer
        self.meta: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
        self._entries: list[list[Any]] = newest_first[::-1]
        self.top = int(self.meta[b"top"])
        self.tag = self.meta[b"tag"]
        self.cum = int(self.meta[b"cum"])

    @property
    def facts(self) -> Facts:
        """The facts of the stream."""
        meta = self.meta
        leased, stopping = bool(meta[b"owner"]), meta[b"stop"] == b"1"
        readers = frozenset(meta[b"readers"].split())
        version, fence = int(meta[b"version"]), int(meta[b"fence"])
        return Facts(meta[b"epoch"], version, fence, leased, stopping, meta[b"seat"], readers)

    def batches_after(self, offset: int) -> list[Batch]:
        """Return the batches that end after an offset."""
        return batches_of([entry for entry in self._entries if int(entry[0].partition(b"-")[0]) > offset])

    def continues(self, top: int, tag: bytes) -> bool:
        """Tell whether the stream still has what a mirror has, up to the batch with this tag that ends at `top`."""
        if self.top <= top:
            return (self.top, self.tag) == (top, tag)
        if self._at:
            return bool(self._at == tag)
        if not self._entries:
            return True  # they are lost
        [first] = batches_of(self._entries[:1])
        # If the first one begins later, the batch at `top` was trimmed. Otherwise it would be there.
        return first.prev == tag if first.start == top else first.start > top


def batches_of(entries: list[list[Any]]) -> list[Batch]:
    """Read entries of a Redis Stream."""
    return [parse_batch(fields[1]) for _, fields in entries]

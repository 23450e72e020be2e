"""Encoders and batches that the readers of a log share, so that each batch is read and encoded once."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeAlias

from ..events import Entries
from .base import Encoder, Wire

# A batch may hold one entry of any size, and an application may make a wire for each request.
SHARED_BATCHES = 8
SHARED_BYTES = 1 << 20
SHARED_ENCODERS = 8


Message: TypeAlias = MutableMapping[str, Any]
"""A message that connections pass to their server. Nobody may change one that is shared."""
Spell: TypeAlias = Callable[[bytes], Message | None]
"""A function from encoded entries to the message that a server sends for them, or None if it is not exactly one."""
News: TypeAlias = tuple[int, int, Encoder, Spell, str, Message]
"""The newest entries as a message: the offset before them, that of the last, what made the message, the last one's tag,
and the message.
"""


class Shared:
    """The newest batches of a log by the offset before them, and its encoders by wire. Both are bounded."""

    __slots__ = ("batches", "encoders", "news", "size")

    def __init__(self) -> None:
        self.batches: dict[int, tuple[int, Entries, int]] = {}
        """The log's top when the batch was read, the batch, and the bytes of its JSON."""
        self.encoders: dict[Wire, Encoder] = {}
        self.news: News | None = None
        self.size = 0  # the bytes of JSON in all batches

    def clear(self) -> None:
        """Drop everything, because the log has no readers."""
        self.batches.clear()
        self.news = None
        self.encoders.clear()
        self.size = 0

    def keep_encoder(self, wire: Wire, encoder: Encoder) -> Encoder:
        """Keep an encoder for other readers on its wire, and return it."""
        if len(self.encoders) == SHARED_ENCODERS:
            del self.encoders[next(iter(self.encoders))]
        self.encoders[wire] = encoder
        return encoder

    def keep_batch(self, after: int, top: int, entries: Entries) -> None:
        """Keep a batch for other readers at the same place. It is valid until the log's top changes."""
        self._drop_batch(after)
        size = sum(map(len, entries.json))
        while self.batches and (len(self.batches) == SHARED_BATCHES or self.size + size > SHARED_BYTES):
            self._drop_batch(next(iter(self.batches)))
        self.batches[after] = top, entries, size
        self.size += size

    def _drop_batch(self, after: int) -> None:
        if (found := self.batches.pop(after, None)) is not None:
            self.size -= found[2]

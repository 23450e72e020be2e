"""A stream in Redis, as this process writes and reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ...cursor import Cursor
from ...errors import LogClosed
from ...events import DONE, Entries, Outcome
from ..base import BATCH_BYTES, Row
from .address import Part
from .attempts import repeatedly
from .columns import Columns
from .connection import Refused, Reply, Unreachable
from .frames import NO_TAG, Batch, End, Rows, encode_outcome, is_keyed, parse_batch, tag_of
from .link import Call
from .mirror import Home, Mirror
from .scripts import APPEND, END, STOP, Keys


class RedisLog(Mirror):
    """A mirror that appends to its stream, and fetches the history that it does not hold."""

    __slots__ = ("_append", "_fetches")

    def __init__(self, home: Home, name: str, keys: Keys, meta: Mapping[bytes, bytes]) -> None:
        super().__init__(home, name, keys, meta)
        self._append: Call | None = None
        self._fetches: dict[tuple[int, int], asyncio.Task[list[Batch]]] = {}

    # Writing

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        if not rows:
            return range(self.top + 1, self.top + 1)
        if self.writer is not None and fence == self.writer.fence:
            return await self.writer.append(rows)  # so that it knows which batch comes before its next one
        tag = next(self._home.tags) if key is None else tag_of(key)
        columns, before = Rows.of(rows, tag), self.top
        try:
            reply = asyncio.get_running_loop().create_future()
            self.post(columns, reply, fence=b"" if fence is None else b"%d" % fence)
            offsets = self.stored(columns, await reply)
        except (Unreachable, Refused):  # it may have succeeded: each further attempt looks for it after this offset
            again = partial(self.store, columns, fence=fence, known=before)
            offsets = await repeatedly(again, self._home.patience)
        self._home.written(self)
        if self.top < offsets[-1]:
            await self.reach(offsets[-1])
        return offsets

    def post(self, rows: Rows, reply: Reply, *, fence: bytes, expected: bytes = b"") -> None:
        """Send a batch now, in a first attempt. `expected` is the tag of the batch before, if it is known.

        Unlike `store`, this leaves it to the reply to take the answer and to repeat what fails. Raise Unreachable.
        """
        if self._append is None:
            self._append = self._home.prepare(APPEND, self.keys, self.wire_epoch, more=8)
        body, tag, count, size = rows.body, rows.tag, b"%d" % len(rows.json), b"%d" % rows.size
        packed = self._append.pack(
            len(fence), fence, 0, b"", 1, b"%d" % is_keyed(tag), len(expected), expected,
            len(tag), tag, len(count), count, len(size), size, len(body), body,
        )  # fmt: skip
        self._home.post(self._append, packed, reply)

    async def store(self, rows: Rows, *, fence: int | None, known: int | None, expected: bytes = b"") -> range:
        """Append a batch in a further attempt. Return the offsets of its entries.

        `known` is an offset before the attempts that may have succeeded, or None if none of them left this process.
        Raise as `append` does, and LogClosed if this incarnation is lost.
        """
        first = self.wire_epoch, _or_empty(fence), _or_empty(known), int(is_keyed(rows.tag))
        last = expected, rows.tag, len(rows.json), rows.size, rows.body
        return self.stored(rows, await self._home.run(self.name, self.keys, APPEND, *first, *last))

    def stored(self, rows: Rows, answer: list[Any]) -> range:
        """Take what APPEND answered. Return the offsets of the entries, or raise as `append` does."""
        if len(answer) == 6 and len(rows.json) == 1 and rows.names is None and self.lost is None:
            _, top, prev, _, base, _ = answer
            if int(base) == self.base and self._take_entry(top, prev, rows.tag, rows.json[0]):
                return range(self.top, self.top + 1)
        batch = self._appended(rows, answer)
        if batch.start <= self.top or self.writer is not None:
            self.receive(batch)
        elif self.hears < 2 and self.lost is None:  # otherwise, the batches of others that came before are on the way
            self._go_on_with(batch)
        return range(batch.start + 1, batch.top + 1)

    def _appended(self, rows: Rows, answer: list[Any]) -> Batch:
        """Return the batch that APPEND has stored, or raise what it refuses."""
        granted = self._granted(answer)
        if len(granted) == 1:  # an earlier attempt stored it, perhaps with other rows
            return parse_batch(granted[0])
        top, prev, cum, base, floor = granted
        trimmed = (int(base), int(floor)) if int(base) > self.base else None
        return Batch(self.wire_epoch, int(top), rows.tag, prev, int(cum), rows.json, rows.names, trimmed)

    async def close(self, outcome: Outcome = DONE, *, fence: int | None = None) -> Outcome:
        if self.outcome is not None:
            return self.outcome
        return await repeatedly(lambda: self.store_end(outcome, fence=fence), self._home.patience)

    async def store_end(self, outcome: Outcome, *, fence: int | None, expected: bytes = b"") -> Outcome:
        """End the log in one attempt."""
        keep = self._home.keep_ms(self, ended=True)
        try:
            top, tag = await self.run(END, _or_empty(fence), expected, encode_outcome(outcome), keep)
        except LogClosed:
            if self.lost is not None:
                raise
            await self.refresh()
        else:
            self.receive(End(self.wire_epoch, int(top), tag, outcome))
            await self.reach(int(top))
        return self.outcome or outcome

    async def stop(self) -> None:
        with suppress(LogClosed):
            [asked] = await repeatedly(lambda: self.run(STOP), self._home.patience)
            self.set_control(stopping=asked == b"1" and self.outcome is None)

    # Reading

    async def catch_up(self) -> None:
        await repeatedly(self.refresh, self._home.patience)

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries | None:
        if after < self.base:
            raise self.reset(self.lost or "trimmed")
        if after < self._held.base:
            return None
        return self._held.slice(after, limit, size)

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        while (entries := self.read_nowait(after, limit, size)) is None:
            batches = await self._fetch(after, size)
            if self._begins_by(batches, after):
                return Columns.of(batches).slice(after, min(limit, self.top - after), size)
            await self._miss(batches)
        return entries

    def cursor(self, offset: int) -> Cursor:
        return self._tagged(super().cursor(offset))

    def end_cursor(self) -> Cursor:
        return self._tagged(super().end_cursor())

    async def resolve(self, cursor: Cursor) -> int:
        if cursor.epoch != self.epoch or cursor.offset > self.top:
            # The news of what the cursor is about may not have come yet.
            await self.catch_up()
        if self.lost is not None:
            raise self.reset(self.lost)
        if cursor.offset > self.top and cursor.tag and cursor.epoch == self.epoch:
            raise self.reset("diverged")  # once there was such an entry
        return await super().resolve(cursor)

    async def has_tag(self, offset: int, tag: str) -> bool:
        if not tag:
            return True
        found = self._held.tag_at(offset)
        if found is None:
            # The one that holds the entry. At the base, the first kept batch knows the tag of the one before.
            batches = await self._fetch(offset - 1, 1)
            if not self._begins_by(batches, offset):
                await self._miss(batches)
                raise self.reset("trimmed")
            found = batches[0].tag if batches[0].start < offset else batches[0].prev
        return found == tag.encode()

    def size(self) -> tuple[int, int]:
        return self.top - self.base, self._held.cum - self.floor

    def _tagged(self, cursor: Cursor) -> Cursor:
        tag = self._held.tag_at(cursor.offset)
        return cursor if tag is None or tag == NO_TAG else replace(cursor, tag=tag.decode())

    async def _fetch(self, after: int, size: int) -> list[Batch]:
        """Fetch batches, once for all readers that ask for the same ones meanwhile."""
        if (fetch := self._fetches.get((after, size))) is None:
            fetching = repeatedly(lambda: self._home.fetch(self, after, size), self._home.patience)
            self._home.open()
            fetch = self._fetches[after, size] = self._home.spawn(fetching)
            fetch.add_done_callback(lambda _: self._fetches.pop((after, size)))
        return await asyncio.shield(fetch)

    def _begins_by(self, batches: list[Batch], offset: int) -> bool:
        """Tell whether batches of this incarnation begin at an offset or before."""
        return bool(batches) and batches[0].epoch == self.wire_epoch and batches[0].start <= offset

    async def _miss(self, batches: list[Batch]) -> None:
        """Learn why entries before `batches` are missing: this incarnation is lost, or they were trimmed or evicted."""
        await self.catch_up()
        if self.lost is not None:
            raise self.reset(self.lost)
        ours = batches and batches[0].epoch == self.wire_epoch
        self.base = max(self.base, batches[0].start if ours else self._held.base)


def _or_empty(number: int | None) -> Part:
    return b"" if number is None else number

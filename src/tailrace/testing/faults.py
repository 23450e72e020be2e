"""The contract of a store whose connections break, and of one that loses writes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ..cursor import Cursor
from ..errors import LogReset, StoreUnavailable
from ..events import DONE
from ..flow import Retention
from ..log.base import Log
from ..log.store import LogStore
from .base import NAME, Contract, cursors_of, raised, turns, write


class FaultContract(Contract):
    """Tests of what readers and writers see of a fault. `WriterContract` has the tests of a writer's own faults."""

    # A connection that breaks

    async def test_a_lost_connection_does_not_harm_a_stream(self) -> None:
        """While connections break, a stream loses, doubles and reorders nothing, and its end is stored."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            there = await self._find(other, NAME)
            reading = [await self._waiting(self._rest(log.tail())) for log in (writer.log, there)]
            for number in range(200):
                write(writer, number)
                await turns(number % 8)
                if number % 50 == 25:
                    await self._soon(self.disconnect((one, other)[number // 50 % 2]))
            assert await self._soon(writer.end(DONE, patience=self.limit)) == DONE
            for rest in reading:
                assert await self._soon(rest) == list(range(200))

    async def test_a_lost_connection_does_not_harm_a_room(self) -> None:
        """While connections break, an item that was acknowledged is there once, and any other at most once."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            known: dict[int, list[int]] = {}

            async def publish(publisher: int, log: Log, store: LogStore) -> None:
                for number in range(100):
                    if publisher < 2 and number % 50 == 25:
                        await self.disconnect(store)  # the appends of others are on their way
                    with suppress(StoreUnavailable):  # whether it was appended is not known then
                        known[(await log.append([publisher, number]))[0]] = [publisher, number]

            reading = [await self._waiting(self._rest(log.tail())) for log in (here, there)]
            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as group:
                for publisher, (log, store) in enumerate([(here, one), (there, other)] * 3):
                    group.create_task(publish(publisher, log, store))
            await self._soon(here.close())
            items = await self._soon(reading[0])
            assert items == await self._soon(reading[1])
            assert {offset: items[offset - 1] for offset in known} == known
            for publisher in range(6):
                numbers = [number for of, number in items if of == publisher]
                assert numbers == sorted(set(numbers))

    async def test_an_append_whose_answer_is_lost_is_made_once(self) -> None:
        """An item is not appended twice, wherever in its append the connection breaks."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            known: dict[int, int] = {}

            async def append(number: int) -> None:
                with suppress(StoreUnavailable):  # whether it was appended is not known then
                    known[number] = (await here.append(number))[0]

            async with asyncio.timeout(self.limit):
                for start in (0, 20, 40):
                    async with asyncio.TaskGroup() as group:
                        for number in range(start, start + 20):
                            group.create_task(append(number))
                            await turns(1)
                        await self.disconnect(one)
            await self._soon(there.close())
            with there.tail() as tail:
                items = await self._rest(tail)
            assert len(items) == len(set(items))
            assert {number: items.index(number) + 1 for number in known} == known

    async def test_an_append_with_a_key_is_made_once_however_often_it_is_tried(self) -> None:
        """After a lost answer, another process may repeat the append, even while the first one may still try."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]

            async def append(log: Log, number: int) -> None:
                with suppress(StoreUnavailable):
                    await log.append(number, key=f"key {number}")

            async with asyncio.timeout(self.limit):
                for start in (0, 20, 40):
                    async with asyncio.TaskGroup() as group:
                        for number in range(start, start + 20):
                            group.create_task(append(here, number))
                            await turns(1)
                        await self.disconnect(one)
                        for number in range(start, start + 20):
                            group.create_task(append(there, number))
                for number in range(60):
                    await there.append(number, key=f"key {number}")
            await self._soon(here.close())
            with here.tail() as tail:
                assert sorted(await self._rest(tail)) == list(range(60))

    async def test_a_reader_whose_connection_was_lost_misses_nothing(self) -> None:
        """A reader in a process that connects again gets what came meanwhile, before what comes then."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            reading = await self._waiting(self._rest(there.tail()))
            count = 0
            for _ in range(3):
                await self._soon(self.disconnect(other))
                back = asyncio.create_task(self._reach(count + 20, there))
                while not back.done():
                    count = (await self._soon(here.append(count)))[-1]
                await back
            await self._soon(here.close())
            assert await self._soon(reading) == list(range(count))

    async def test_news_that_came_while_the_connection_was_lost_arrives(self) -> None:
        """A reader gets what was appended and said while its process had no connection, with no event after it."""
        self._needs("disconnect")
        async with self.open_stores() as (one, other):
            for number in range(4):
                here = await self._soon(one.create(f"/cut-{number}", Retention()))
                there = await self._find(other, here.name)
                with there.tail() as tail:
                    await self._soon(here.append(1))
                    assert await self._take(tail, 1) == [1]
                    await self._soon(self.disconnect(other))
                    await self._soon(here.append(2))
                    if number % 2:
                        await self._soon(here.stop())
                    assert await self._take(tail, 1) == [2]
                    if number % 2:
                        await self._told(there, lambda log: log.control.stopping)
                await self._soon(here.close())
                await self._ended(there)

    # A store that loses writes

    async def test_a_reader_of_lost_entries_is_reset(self) -> None:
        """A reader that has entries which the store has lost gets a reset, not what is now in their place."""
        self._needs("rollback")
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            await self._append(here, 1, 2, at=[there])
            with here.tail() as near, there.tail() as far:
                async with self.rollback():
                    await self._soon(here.append(3, 4))
                    for tail in (near, far):
                        assert await self._take(tail, 4) == [1, 2, 3, 4]
                for tail in (near, far):
                    assert (await raised(LogReset, self._soon(anext(tail)))).reason == "diverged"
            await self._continues(one, other)

    async def test_a_cursor_of_a_lost_entry_is_reset(self) -> None:
        """A cursor of an entry that the store has lost is refused, even if another entry is in its place by now."""
        self._needs("rollback")
        async with self.open_stores() as (one, other):
            here = await self._soon(one.attach(NAME, Retention()))
            await self._append(here, 1, 2)
            async with self.rollback():
                await self._append(here, 3, 4)
                lost = cursors_of(here, await self._soon(here.read(2, 2)))
            kept = await self._continues(one, other)
            for store in (one, other):
                log = await self._find(store, NAME)
                for cursor in lost:
                    reset = await raised(LogReset, self._soon(log.resolve(cursor)))
                    assert reset.reason in ("diverged", "epoch_changed")
                    after = await self._soon(log.resolve(Cursor.parse(reset.resume)))
                    assert await self._read(log, len(kept), after) == kept

    async def test_a_log_that_catches_up_knows_that_the_store_has_lost_it(self) -> None:
        """A process that is about to rely on a log can find out whether the store still has it."""
        self._needs("rollback")
        async with self.open_stores() as (one, _):
            async with self.rollback():
                log = await self._soon(one.attach(NAME, Retention()))
            await self._soon(log.catch_up())
            assert log.lost == "epoch_changed"

    async def test_a_writer_does_not_continue_behind_lost_entries(self) -> None:
        """A writer whose items the store has lost writes nothing after the gap, and its readers are reset."""
        self._needs("rollback")
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            there = await self._find(other, NAME)
            await self._write(writer, 1, 2)
            with there.tail() as tail:
                async with self.rollback():
                    await self._write(writer, 3, 4)
                    assert await self._take(tail, 4) == [1, 2, 3, 4]
                write(writer, 5)
                await self._told(writer.log, lambda log: log.lost or log.outcome)
                assert writer.lost
                assert (await raised(LogReset, self._soon(anext(tail)))).reason == "diverged"
            found = await self._find(other, NAME)
            assert await self._read(found, found.top) == [1, 2]

    async def _continues(self, one: LogStore, other: LogStore) -> list[Any]:
        """Append to a log that has lost entries, and check that both handles continue it alike. Return what it has."""
        log = await self._soon(one.attach(NAME, Retention()))
        await self._soon(log.append("a", "b"))
        everything: list[list[Any]] = []
        for store in (one, other):
            log = await self._find(store, NAME)
            everything.append(await self._read(log, log.top - await self._base(log), await self._base(log)))
            assert everything[-1][-2:] == ["a", "b"]
            assert 3 not in everything[-1]
        assert everything[0] == everything[1]
        return everything[0]

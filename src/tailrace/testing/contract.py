"""The contract of a store and of its logs, as tests."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from ..errors import LogClosed, LogExists, LogReset
from ..events import DONE, Outcome
from ..flow import Retention
from ..log.base import Log
from ..log.store import LogStore
from .base import NAME, cursors_of, raised, turns, watched, write
from .entries import EntryContract
from .faults import FaultContract
from .flows import FlowContract
from .history import HistoryContract
from .writers import WriterContract, refuses


class LogContract(EntryContract, HistoryContract, FlowContract, WriterContract, FaultContract):
    """Tests for any store. Inherit from it in a test class, define how to open the store, and run it under asyncio.

        class TestMyStore(LogContract):
            cannot = {"rollback": "it acknowledges nothing that it may lose"}

            @asynccontextmanager
            async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
                self.server = await start_server()
                one, other = MyStore(self.server.url), MyStore(self.server.url)
                yield one, other
                await one.aclose()
                await other.aclose()
                await self.server.stop()

            async def disconnect(self, store: LogStore) -> None:
                self.server.cut_connections()

            def refuse(self) -> AbstractAsyncContextManager[None]:
                return self.server.read_only()

            async def kill(self, store: LogStore) -> None:
                store.abort()

    Works with pytest-asyncio in auto mode, and with anyio's plugin under `pytest.mark.anyio` and the asyncio backend.
    """

    # Logs by name

    async def test_processes_find_one_log_by_its_name(self) -> None:
        """All processes that attach to a name have the same log, as the first one made it."""
        async with self.open_stores() as (one, other):
            assert await self._soon(one.find(NAME)) is None
            here = await self._soon(one.attach(NAME, Retention(count=7)))
            there = await self._soon(other.attach(NAME, Retention()))
            for log in (here, there, await self._find(one, NAME), await self._find(other, NAME)):
                assert (log.name, log.epoch, log.stream) == (NAME, here.epoch, here.stream)
                assert (log.created, log.retention) == (here.created, Retention(count=7))
                assert (log.passing, log.fingerprint) == (False, b"")
                assert (log.top, log.outcome) == (0, None)
            assert await self._soon(other.find(NAME + "s")) is None

    async def test_processes_that_attach_at_once_have_one_log(self) -> None:
        """If many processes attach to a name at the same time, there is one log."""
        async with self.open_stores() as (one, other):
            for number in range(10):
                name = f"/attached-{number}"
                attaching = [store.attach(name, Retention()) for store in (one, other, other, one)]
                logs = await self._soon(asyncio.gather(*attaching))
                assert len({log.epoch for log in logs}) == 1
                await asyncio.gather(*(log.append(index) for index, log in enumerate(logs)))
                read = [await self._read(log, 4) for log in logs]
                assert sorted(read[0]) == [0, 1, 2, 3]
                assert read == [read[0]] * 4

    async def test_of_two_that_make_a_stream_at_once_one_does(self) -> None:
        """Requests with one idempotency key share a stream, in all processes: one makes it, and the others find it."""
        async with self.open_stores() as (one, other):
            for number in range(10):
                name = f"/made-{number}"
                making = [
                    store.create(name, Retention(), fingerprint=b"%d" % index)
                    for index, store in enumerate((one, other, one, other))
                ]
                made = await self._soon(asyncio.gather(*making, return_exceptions=True))
                assert [error.name for error in made if isinstance(error, LogExists)] == [name] * 3
                [index] = [index for index, log in enumerate(made) if isinstance(log, Log)]
                for store in (one, other):
                    found = await self._find(store, name)
                    assert (found.passing, found.fingerprint) == (True, b"%d" % index)

    async def test_a_stream_is_not_made_where_a_log_is(self) -> None:
        """A name that is taken, by a log of whatever kind and in whatever state, is not taken again."""
        async with self.open_stores() as (one, other):
            named = await self._soon(one.attach("/named", Retention()))
            made = await self._soon(one.create("/made", Retention(), epoch="first"))
            assert made.epoch == "first"
            await made.close()
            for store in (one, other):
                for log in (named, made):
                    assert (await raised(LogExists, self._soon(store.create(log.name, Retention())))).name == log.name
                    assert (await self._find(store, log.name)).epoch == log.epoch

    async def test_a_process_that_comes_late_has_the_whole_history(self) -> None:
        """A process that finds a log late reads what came before, then what comes, without a gap or a duplicate."""
        async with self.open_stores() as (one, other):
            here = await self._soon(one.attach(NAME, Retention()))
            for number in range(0, 300, 3):
                await here.append(number, number + 1, number + 2)
            there = await self._find(other, NAME)
            assert (there.top, there.base) == (300, 0)
            with there.tail(150) as tail:
                for number in range(300, 310):
                    await here.append(number)
                assert await self._take(tail, 160) == list(range(150, 310))
            assert await self._read(there, 310) == list(range(310))

    async def test_a_process_that_comes_while_others_write_misses_nothing(self) -> None:
        """A process that finds a log in the middle of its events reads each of them once."""
        chance = random.Random(3)
        async with self.open_stores() as (one, other):
            for number in range(10):
                name = f"/busy-{number}"
                here = await self._soon(one.attach(name, Retention()))

                async def publish(log: Log) -> None:
                    for count in range(40):
                        await log.append(count)
                        await turns(chance.randrange(3))

                publishing = asyncio.create_task(publish(here))
                await turns(chance.randrange(100))
                there = await self._find(other, name)
                assert await self._read(there, 40) == list(range(40))
                await self._soon(publishing)

    async def test_an_event_that_comes_during_an_attach_arrives(self) -> None:
        """An event of a quiet stream that comes while a process attaches reaches its readers, with none after it."""
        async with self.open_stores() as (one, other):

            async def join(name: str, count: int) -> list[Any]:
                return await self._read(await other.attach(name, Retention()), count)

            for number in range(60):
                name = f"/quiet-{number}"
                here = await self._soon(one.attach(name, Retention()))
                joining = asyncio.create_task(join(name, 1))
                await turns(number)
                await self._soon(here.append(number))
                assert await self._soon(joining) == [number]
                await self._soon(here.append("next"))
                assert await join(name, 2) == [number, "next"]

    # Forgetting

    async def test_a_log_that_is_dropped_is_gone_everywhere(self) -> None:
        """The name of a log that was dropped is free. A cursor of the old log is reset in the new one."""
        async with self.open_stores() as (one, other):
            old = await self._soon(one.attach(NAME, Retention()))
            await self._append(old, 1, 2)
            await self._find(other, NAME)
            cursor = cursors_of(old, await self._soon(old.read(0, 2)))[0]
            await self._soon(one.drop(old))
            await self._gone(NAME, one, other)
            new = await self._soon(other.attach(NAME, Retention()))
            assert (new.top, new.epoch != old.epoch) == (0, True)
            await self._append(new, "new")
            assert await self._after_reset(new, cursor, "epoch_changed", 1) == ["new"]
            await self._soon(one.drop(old))
            assert (await self._find(one, NAME)).epoch == new.epoch

    async def test_a_reader_that_has_the_end_keeps_it(self) -> None:
        """A reader that has read a log up to its end has it all, even if the log is dropped then."""
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            with here.tail() as near, there.tail() as far:
                await here.append(1, 2)
                await here.close(Outcome("error", "broken"))
                assert [await self._take(tail, 2) for tail in (near, far)] == [[1, 2]] * 2
                await self._ended(here, there)
                cursors = [tail.cursor() for tail in (near, far)]
                await self._soon(one.drop(here))
                await self._gone(NAME, one, other)
                for tail, cursor in zip((near, far), cursors, strict=True):
                    assert (tail.ended, tail.cursor()) == (True, cursor)
                    assert tail.log.outcome == Outcome("error", "broken")
                    assert await self._rest(tail) == []

    async def test_who_uses_a_log_that_is_dropped_is_told(self) -> None:
        """Readers of a log that is dropped are reset, in any process. Its writer and others can write no more."""
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            there = await self._find(other, NAME)
            await self._write(writer, 1)
            with writer.log.tail() as near, there.tail() as far:
                for tail in (near, far):
                    assert await self._take(tail, 1) == [1]
                waiting = [await self._waiting(raised(LogReset, anext(tail))) for tail in (near, far)]
                await self._soon(other.drop(there))
                for reset in waiting:
                    assert (await self._soon(reset)).reason == "epoch_changed"
            assert writer.lost
            assert refuses(writer)
            for log in (writer.log, there):
                await raised(LogClosed, self._soon(log.append(2)))
                with log.tail() as tail:
                    assert (await raised(LogReset, self._soon(anext(tail)))).reason == "epoch_changed"

    async def test_a_dropped_log_takes_no_memory(self) -> None:
        """A process keeps an ended log for those who come back, but not once it is dropped."""
        async with self.open_stores() as (one, _):
            log = await self._soon(one.attach(NAME, Retention()))
            await self._append(log, "12345678")
            await log.close()
            await self._ended(log)
            assert one.kept == (1, 10)
            await self._soon(one.drop(log))
            assert one.kept == (0, 0)

    async def test_a_log_that_nobody_uses_expires(self) -> None:
        """A log is forgotten when its time is over."""
        async with self.open_stores() as (one, other):
            for store, name in ((one, "/open"), (other, "/ended")):
                log = await self._soon(one.attach(name, Retention()))
                await self._append(log, 1)
                if name == "/ended":
                    await log.close()
                await self._soon(store.expire(await self._find(store, name), 0.05))
            del log
            await self._gone("/open", one, other)
            await self._gone("/ended", one, other)

    async def test_a_log_that_is_used_anywhere_does_not_expire(self) -> None:
        """While any process has a reader or a writer of a log, the log is not forgotten."""
        async with self.open_stores() as (one, other):
            for name in ("/read", "/leased", "/unused"):
                await self._soon(one.attach(name, Retention()))
            writer = await self._soon(other.lease(await self._find(other, "/leased")))
            with (await self._find(other, "/read")).tail() as tail:
                await self._told(await self._find(one, "/leased"), lambda log: log.control.leased)
                await self._told(await self._find(one, "/read"), watched)
                for name, seconds in (("/read", 0.05), ("/leased", 0.05), ("/unused", 0.1)):
                    await self._soon(one.expire(await self._find(one, name), seconds))
                await self._gone("/unused", one, other)
                for name in ("/read", "/leased"):
                    assert await self._soon(one.find(name)) is not None
                await (await self._find(one, "/read")).append(1)
                assert await self._take(tail, 1) == [1]
                write(writer, 2)
                assert await self._read(await self._find(one, "/leased"), 1) == [2]
            del tail
            await self._told(await self._find(one, "/read"), lambda log: not watched(log))
            await self._soon(one.expire(await self._find(one, "/read"), 0))
            await self._gone("/read", one, other)

    async def test_a_later_expiry_counts(self) -> None:
        """The last time that was set for a log is the one that counts."""
        async with self.open_stores() as (one, other):
            for name in ("/later", "/now"):
                await self._soon(one.attach(name, Retention()))
            here, there, now = [
                await self._find(store, name) for store, name in ((one, "/later"), (other, "/later"), (one, "/now"))
            ]
            await self._soon(one.expire(here, 0.3))
            await self._soon(other.expire(there, 60))
            await self._soon(one.expire(now, 0.3))
            await self._gone("/now", one, other)
            assert await self._soon(one.find("/later")) is not None

    async def test_a_log_that_catches_up_has_what_the_store_has(self) -> None:
        """A process that asks for what others have done need not wait for the news of it."""
        async with self._logs() as (here, there):
            await self._soon(here.append(1, 2))
            await self._soon(there.catch_up())
            assert there.top == 2
            await self._soon(here.close())
            await self._soon(there.catch_up())
            assert there.outcome == DONE

    async def test_processes_share_a_secret(self) -> None:
        """All processes derive the same ids from a secret that nobody else knows."""
        async with self.open_stores() as (one, other):
            secrets = await self._soon(asyncio.gather(one.secret(), other.secret(), one.secret()))
            assert secrets[0] == secrets[1] == secrets[2]
            assert len(secrets[0]) == 32

    async def test_a_use_meanwhile_ends_an_expiry(self) -> None:
        """A log that is read or written before its time is over is kept as long as any other."""
        async with self.open_stores() as (one, other):
            names = "/read", "/written", "/unused"
            here = [await self._soon(one.attach(name, Retention())) for name in names]
            there = [await self._find(other, name) for name in names]
            await self._soon(one.expire(here[0], 1.0))
            with there[0].tail():
                await self._told(here[0], watched)
            await self._soon(one.expire(here[1], 1.0))
            await self._soon(there[1].append(1))
            await self._soon(one.expire(here[2], 1.0))
            del here, there
            await self._gone("/unused", one, other)
            for name in ("/read", "/written"):
                assert await self._soon(other.find(name)) is not None

    async def test_a_store_can_be_used_after_it_was_closed(self) -> None:
        """A store that was closed opens again when it is used."""
        async with self.open_stores() as (one, _):
            await self._append(await self._soon(one.attach("/before", Retention())), 1)
            await self._soon(one.aclose())
            log = await self._soon(one.attach("/after", Retention()))
            await self._append(log, 2)
            assert await self._read(log, 1) == [2]

    # Helpers

    async def _gone(self, name: str, *stores: LogStore) -> None:
        """Wait until stores do not find a log any more. Nothing tells when a store forgets it."""
        async with asyncio.timeout(self.limit):
            for store in stores:
                while await store.find(name) is not None:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)

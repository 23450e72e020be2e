"""The contract of a stream with one writer: its lease, its writes, its end, and what others do to it."""

from __future__ import annotations

import asyncio

from ..errors import LogClosed, LogFenced
from ..events import DONE, Outcome
from ..flow import Retention
from ..log.writer import UNAVAILABLE, Writer
from .base import NAME, Contract, raised, turns, watched, write


class WriterContract(Contract):
    """Tests of a writer at one handle, and of its stream at the other."""

    # Writing

    async def test_a_write_never_waits(self) -> None:
        """A generator writes as fast as it likes. Readers everywhere get its items in order."""
        async with self._stream() as (writer, there):
            write(writer, *range(1_000))
            assert writer.top == 1_000
            for log in (writer.log, there):
                assert await self._read(log, 1_000) == list(range(1_000))

    async def test_each_event_of_a_slow_generator_arrives(self) -> None:
        """An event reaches readers everywhere without a flush, and without a further event after it."""
        async with self._stream() as (writer, there):
            with writer.log.tail() as near, there.tail() as far:
                for number in range(1, 6):
                    waiting = [await self._waiting(self._take(tail, 1)) for tail in (near, far)]
                    write(writer, number)
                    assert [await self._soon(data) for data in waiting] == [[number]] * 2

    async def test_a_flush_waits_until_all_is_stored(self) -> None:
        """After a flush, any new reader finds all that was written."""
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            for count in (1, 10, 500):
                write(writer, *range(writer.top, count))
                await self._soon(writer.flush())
                assert (await self._find(other, NAME)).top == count
            await self._soon(writer.flush())
            assert await self._read(await self._find(other, NAME), 500) == list(range(500))

    async def test_the_end_of_a_stream_comes_after_all_that_was_written(self) -> None:
        """An end needs no flush. Readers everywhere get every item and then the outcome, with its data."""
        outcome = Outcome("done", data={"total": 300})
        async with self._stream() as (writer, there):
            reading = [await self._waiting(self._rest(log.tail())) for log in (writer.log, there)]
            write(writer, *range(300))
            assert await self._soon(writer.end(outcome, patience=self.limit)) == outcome
            assert [await self._soon(rest) for rest in reading] == [list(range(300))] * 2
            assert writer.log.outcome == there.outcome == outcome

    async def test_after_the_end_a_writer_is_done(self) -> None:
        """A writer writes nothing after the end, and gives its lease back with it."""
        async with self._stream() as (writer, there):
            write(writer, 1)
            await self._soon(writer.end(Outcome("error", "broken"), patience=self.limit))
            assert refuses(writer)
            await self._ended(writer.log, there)
            assert await self._soon(writer.end(DONE, patience=self.limit)) == Outcome("error", "broken")
            await self._told(there, lambda log: not log.control.leased)
            with there.tail() as tail:
                assert await self._rest(tail) == [1]

    async def test_what_was_written_before_a_release_is_stored(self) -> None:
        """A writer that gives its lease back leaves an open log with all that it has written."""
        async with self._stream() as (writer, there):
            write(writer, *range(50))
            await self._soon(writer.release())
            assert refuses(writer)
            assert await self._read(there, 50) == list(range(50))
            assert there.outcome is None

    # Room

    async def test_room_is_made_by_the_fastest_reader(self) -> None:
        """A generator that blocks waits for its fastest reader, and not for a slower one."""
        async with self._stream() as (writer, _):
            with writer.log.tail(), writer.log.tail() as fast:
                await self._write(writer, 1, 2)
                await self._soon(wait_room(writer, 3, without_readers=False))
                await self._write(writer, 3)
                waiting = await self._waiting(wait_room(writer, 3, without_readers=False))
                assert await self._take(fast, 3) == [1, 2, 3]
                await self._soon(waiting)
                assert writer.lag() == 0

    async def test_room_is_not_waited_for_without_readers_or_after_the_end(self) -> None:
        """A generator that blocks goes on when its last reader leaves, or when its log ends."""
        async with self._stream() as (writer, there):
            with writer.log.tail():
                await self._write(writer, 1, 2)
                left = await self._waiting(wait_room(writer, 2, without_readers=False))
            await self._soon(left)
            waiting = await self._waiting(wait_room(writer, 2, without_readers=True))
            await there.close()
            await self._soon(waiting)
            await self._soon(wait_room(writer, 2, without_readers=True))

    async def test_a_cancelled_wait_for_room_leaves_nothing_behind(self) -> None:
        """A wait for room that was cancelled can be repeated."""
        async with self._stream() as (writer, _):
            with writer.log.tail() as tail:
                await self._write(writer, 1, 2)
                first = await self._waiting(wait_room(writer, 2, without_readers=False))
                first.cancel()
                await asyncio.wait([first])
                second = await self._waiting(wait_room(writer, 2, without_readers=False))
                assert await self._take(tail, 2) == [1, 2]
                await self._soon(second)

    async def test_a_reader_that_starts_live_leaves_room(self) -> None:
        """A reader that does not want the history is not behind."""
        async with self._stream() as (writer, _):
            await self._write(writer, 1, 2)
            with writer.log.tail(writer.log.top):
                await self._soon(wait_room(writer, 2, without_readers=False))

    async def test_what_is_not_stored_is_bounded(self) -> None:
        """While the store accepts nothing, a writer is soon full. It has room again when everything is stored."""
        self._needs("refuse")
        async with self._stream() as (writer, there):
            item = "x" * (64 << 10)
            async with self.refuse():
                while not writer.log.full:
                    write(writer, item)
                    assert writer.top <= 1_024, "expected a writer to be full with less than 64 MB"
                waiting = await self._waiting(wait_room(writer, 1 << 20, without_readers=True))
            await self._soon(waiting)
            assert not writer.log.full
            await self._soon(writer.flush())
            assert await self._read(there, writer.top) == [item] * writer.top

    # The lease

    async def test_a_stream_belongs_to_its_writer(self) -> None:
        """Only one writer in all processes has a stream. Nobody else can append to it, or take it."""
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            there = await self._find(other, NAME)
            assert (await raised(LogFenced, self._soon(other.lease(there)))).name == NAME
            for log in (writer.log, there):
                assert (log.control.leased, log.control.fence) == (True, writer.fence)
                assert (await raised(LogFenced, self._soon(log.append(1)))).fence == writer.fence
                await raised(LogFenced, self._soon(log.append(1, fence=writer.fence + 1)))
                await raised(LogFenced, self._soon(log.close(fence=writer.fence + 1)))
            write(writer, 2)
            assert await self._read(there, 1) == [2]

    async def test_a_log_without_a_writer_belongs_to_nobody(self) -> None:
        """A log that was attached by name takes items from everybody, until somebody leases it."""
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            assert (here.control.fence, here.control.leased) == (0, False)
            await there.append(1)
            writer = await self._soon(one.lease(here))
            assert writer.log is here
            await raised(LogFenced, there.append("no"))
            await self._told(there, lambda log: log.control.leased)
            write(writer, 2)
            await self._soon(writer.release())
            assert list(await there.append(3)) == [3]
            await self._told(there, lambda log: not log.control.leased)
            assert await self._read(here, 3) == [1, 2, 3]

    async def test_of_two_leases_at_once_one_is_given(self) -> None:
        """If two processes lease a stream at the same time, one gets it and the other is told."""
        async with self.open_stores() as (one, other):
            for number in range(10):
                name = f"/raced-{number}"
                logs = [await self._soon(store.attach(name, Retention())) for store in (one, other)]
                leases = [store.lease(log) for store, log in zip((one, other), logs, strict=True)]
                results = await self._soon(asyncio.gather(*leases, return_exceptions=True))
                assert sorted(type(result) is LogFenced for result in results) == [False, True], results
                [writer] = [result for result in results if isinstance(result, Writer)]
                write(writer, number)
                for log in logs:
                    assert await self._read(log, 1) == [number]

    async def test_a_writer_that_lost_its_lease_writes_nothing_more(self) -> None:
        """When the lease has gone to another process, everything with the old fence is refused."""
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            first = await self._soon(one.lease(here))
            write(first, 1)
            await self._soon(first.release())
            second = await self._soon(other.lease(there))
            assert second.fence > first.fence
            assert (await raised(LogFenced, self._soon(here.append("no", fence=first.fence)))).fence == second.fence
            await raised(LogFenced, self._soon(here.close(fence=first.fence)))
            assert refuses(first)
            await self._told(here, lambda log: log.control.fence == second.fence and log.control.leased)
            write(second, 2)
            await self._soon(second.end(DONE, patience=self.limit))
            for log in (here, there):
                with log.tail() as tail:
                    assert await self._rest(tail) == [1, 2]

    async def test_a_stop_is_meant_for_the_writer_of_then(self) -> None:
        """A producer is not stopped because an earlier one of the same log was asked to stop."""
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            first = await self._soon(one.lease(here))
            await self._soon(there.stop())
            await self._told(here, lambda log: log.control.stopping)
            await self._soon(first.release())
            await self._soon(one.lease(here))
            for log in (here, there):
                await self._told(log, lambda log: log.control.leased and not log.control.stopping)

    async def test_a_stop_before_the_first_writer_is_kept_for_it(self) -> None:
        """A stream that was stopped between its making and its start does not run on."""
        async with self.open_stores() as (one, other):
            log = await self._soon(one.create(NAME, Retention()))
            await self._soon((await self._find(other, NAME)).stop())
            await self._soon(one.lease(log))
            await self._told(log, lambda log: log.control.leased and log.control.stopping)

    async def test_a_stop_of_a_log_that_nobody_writes_does_nothing(self) -> None:
        """A named log without a writer is not stopped, so that a later producer runs."""
        async with self.open_stores() as (one, other):
            here, there = [await self._soon(store.attach(NAME, Retention())) for store in (one, other)]
            await self._soon(there.stop())
            await self._soon(one.lease(here))
            for log in (here, there):
                await self._told(log, lambda log: log.control.leased)
                assert not log.control.stopping

    # What others do to it

    async def test_a_writer_learns_that_its_log_was_ended(self) -> None:
        """Anybody may end a log. The producer is told and can write no more; the first outcome stays."""
        async with self._stream() as (writer, there):
            await self._write(writer, 1)
            waiting = await self._waiting(self._told(writer.log, lambda log: log.outcome))
            assert await there.close(Outcome("cancelled", "moderated")) == Outcome("cancelled", "moderated")
            await self._soon(waiting)
            assert refuses(writer)
            ended = await self._soon(writer.end(DONE, patience=self.limit))
            assert ended == writer.log.outcome == Outcome("cancelled", "moderated")

    async def test_a_stop_reaches_the_writer_from_any_process(self) -> None:
        """A producer is told of a stop from any process, and still writes its last items and its end."""
        async with self._stream() as (writer, there):
            await self._write(writer, 1)
            waiting = await self._waiting(self._told(writer.log, lambda log: log.control.stopping))
            await self._soon(there.stop())
            await self._soon(waiting)
            await self._told(there, lambda log: log.control.stopping)
            await self._soon(there.stop())
            write(writer, "last")
            await self._soon(writer.end(Outcome("cancelled", "stopped"), patience=self.limit))
            with there.tail() as tail:
                assert await self._rest(tail) == [1, "last"]
            assert there.outcome == Outcome("cancelled", "stopped")

    async def test_a_stop_is_found_by_a_process_that_comes_later(self) -> None:
        """A process that finds a stream knows that it was asked to stop."""
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            await self._soon(writer.log.stop())
            assert (await self._find(other, NAME)).control.stopping

    async def test_a_stop_after_the_end_does_nothing(self) -> None:
        """A stream that has ended keeps its outcome when it is asked to stop."""
        async with self._stream() as (writer, there):
            await self._soon(writer.end(DONE, patience=self.limit))
            await self._ended(there)
            await self._soon(there.stop())
            assert not there.control.stopping
            assert there.outcome == writer.log.outcome == DONE

    async def test_a_producer_learns_of_readers_anywhere(self) -> None:
        """A producer is told when the first reader of any process comes, and when the last one has left."""
        async with self._stream() as (writer, there):
            for watching, reading in ((writer.log, there), (there, writer.log)):
                for _ in range(3):
                    assert not watched(watching)
                    with reading.tail():
                        await self._told(watching, watched)
                        assert watching.control.elsewhere == (watching is not reading)
                        reading.tail().close()
                        with reading.tail():
                            pass
                        assert watched(watching)
                    await self._told(watching, lambda log: not watched(log))

    async def test_readers_that_come_and_go_quickly_are_counted(self) -> None:
        """However quickly a reader comes and goes, a producer knows in the end whether it is there."""
        async with self.open_stores() as (one, other):
            for number in range(10):
                writer = await self._lease(one, f"/quick-{number}")
                there = await self._find(other, f"/quick-{number}")
                for _ in range(3):
                    with there.tail():
                        await turns(number)
                    await turns(number)
                # News of this stop comes after the news of those readers.
                await self._soon(there.stop())
                await self._told(writer.log, lambda log: log.control.stopping)
                await self._told(writer.log, lambda log: not watched(log))
                with there.tail():
                    await turns(number)
                    there.tail().close()
                    await self._told(writer.log, watched)

    async def test_readers_that_were_there_before_are_counted(self) -> None:
        """A process that comes later knows of the readers in other processes."""
        async with self.open_stores() as (one, other):
            here = await self._soon(one.attach(NAME, Retention()))
            with here.tail():
                there = await self._soon(other.attach(NAME, Retention()))
                await self._told(there, watched)
            await self._told(there, lambda log: not watched(log))

    async def test_a_stream_whose_process_died_ends(self) -> None:
        """When the process of a producer dies, readers get all that was stored, and then `producer_lost`."""
        self._needs("kill")
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            there = await self._find(other, NAME)
            await self._write(writer, 1, 2)
            with there.tail() as tail:
                await self.kill(one)
                assert await self._rest(tail) == [1, 2]
            assert there.outcome is not None
            assert (there.outcome.state, there.outcome.code) == ("error", "producer_lost")

    async def test_readers_whose_process_died_are_not_counted(self) -> None:
        """When a process with readers dies, the producer is told that they are gone."""
        self._needs("kill")
        async with self.open_stores() as (one, other):
            writer = await self._lease(one)
            with (await self._find(other, NAME)).tail():
                await self._told(writer.log, watched)
                await self.kill(other)
                await self._told(writer.log, lambda log: not log.control.elsewhere)

    # An end that the store refuses

    async def test_an_end_that_is_refused_is_repeated(self) -> None:
        """If the store accepts no writes for a while, the end of a stream is stored when it does again."""
        self._needs("refuse")
        async with self._stream() as (writer, there):
            await self._write(writer, 1)
            async with self.refuse():
                write(writer, 2)
                ending = asyncio.create_task(writer.end(DONE, patience=self.limit))
                await asyncio.wait([ending], timeout=self.pause)
                assert not ending.done()
                assert writer.log.outcome is None
            assert await self._soon(ending) == DONE
            for log in (writer.log, there):
                with log.tail() as tail:
                    assert await self._rest(tail) == [1, 2]
                assert log.outcome == DONE

    async def test_an_end_that_is_refused_for_good_is_told(self) -> None:
        """If the store does not accept the end of a stream in time, its readers are told `unavailable`."""
        self._needs("refuse")
        async with self._stream() as (writer, _):
            await self._write(writer, 1)
            with writer.log.tail() as tail:
                rest = await self._waiting(self._rest(tail))
                async with self.refuse():
                    ended = await self._soon(writer.end(DONE, patience=self.pause))
                    assert await self._soon(rest) == [1]
                assert ended == writer.log.outcome == UNAVAILABLE
                assert refuses(writer)


async def wait_room(writer: Writer, high: int, *, without_readers: bool) -> None:
    """Wait for room, as a producer does."""
    while not writer.has_room(high, without_readers=without_readers):
        await writer.log.wait_change()


def refuses(writer: Writer) -> bool:
    """Tell whether a writer refuses to write."""
    try:
        write(writer, "no")
    except (LogClosed, LogFenced):
        return True
    return False

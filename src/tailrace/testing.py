"""Tools for tests: the contract suite of logs, and a recorder of what an ASGI application receives and sends.

pytest explains failed asserts of the suite if a conftest says `pytest.register_assert_rewrite("tailrace.testing")`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .cursor import Cursor
from .errors import EventError, LogClosed, LogReset, SlowReader
from .events import DONE, Entries, Event, Outcome
from .flow import Flow, Retention
from .log.base import Log, Tail

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]


async def raised(kind: type[E], awaitable: Awaitable[object]) -> E:
    """The exception of a kind that an awaitable raises; AssertionError if it raises none."""
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, but got {result!r}")


class LogContract:
    """What every log does. Inherit it in a test class, say how to make a log, and run it under asyncio.

        class TestMyLog(LogContract):
            @asynccontextmanager
            async def make_log(self, retention: Retention) -> AsyncIterator[Log]:
                yield MyLog("contract", retention)

    Works with pytest-asyncio in auto mode, and with anyio's plugin under `pytest.mark.anyio` and the asyncio backend.
    """

    limit: float = 10.0
    """Seconds after which what should have happened has failed to."""

    slack: int = 128
    """How many entries beyond its retention's bound a log may keep."""

    age: float = 0.1
    """Seconds to keep entries in the test of retention by age."""

    def make_log(self, retention: Retention) -> AbstractAsyncContextManager[Log]:
        """An empty log, as an async context manager that cleans up after it."""
        raise NotImplementedError(f"expected {type(self).__name__} to define make_log")

    async def reopen(self, log: Log) -> Log:
        """The log as somebody else finds it, where logs outlive their process; else the same."""
        return log

    # Writing

    async def test_append_gives_consecutive_offsets_from_1(self) -> None:
        async with self.make_log(Retention()) as log:
            assert [await log.append(number) for number in range(3)] == [1, 2, 3]
            assert (log.base, log.top) == (0, 3)

    async def test_extend_gives_the_offset_of_the_last(self) -> None:
        async with self.make_log(Retention()) as log:
            assert await log.extend("abc") == 3
            assert await log.extend([]) == 3
            assert await log.append("d") == 4
            assert _data(await log.read(0, 10)) == ["a", "b", "c", "d"]

    async def test_extend_appends_nothing_if_one_item_cannot_be_encoded(self) -> None:
        async with self.make_log(Retention()) as log:
            await raised(EventError, log.extend([1, 2, object()]))
            assert log.top == 0
            assert await log.append(3) == 1

    async def test_an_entry_is_what_was_appended(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(Event({"left": [1, None, "ü\n"]}, event="tick"))
            await log.append("bare")
            entries = [(entry.offset, entry.event, entry.data) for entry in await log.read(0, 10)]
            assert entries == [(1, "tick", {"left": [1, None, "ü\n"]}), (2, None, "bare")]

    # The end

    async def test_the_first_outcome_wins(self) -> None:
        async with self.make_log(Retention()) as log:
            first = Outcome("error", "broken", "it broke")
            assert await log.close(first) == first
            assert await log.close(DONE) == first
            assert log.outcome == first

    async def test_append_after_the_end_raises_and_appends_nothing(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            await log.close(Outcome("cancelled"))
            assert (await raised(LogClosed, log.append(2))).state == "cancelled"
            assert (await raised(LogClosed, log.extend([2, 3]))).name == log.name
            assert log.top == 1

    async def test_the_end_is_durable(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend([1, 2])
            await log.close(Outcome("error", "broken"))
            found = await self.reopen(log)
            assert found.outcome == Outcome("error", "broken")
            with found.tail() as tail:
                assert await self._rest(tail) == [1, 2]
            await raised(LogClosed, found.append(3))

    # Reading

    async def test_read_is_bounded_by_after_and_limit(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend(range(1, 6))
            assert _data(await log.read(0, 2)) == [1, 2]
            assert _data(await log.read(2, 2)) == [3, 4]
            assert _data(await log.read(4, 2)) == [5]

    async def test_read_does_not_wait_for_what_is_not_there(self) -> None:
        async with self.make_log(Retention()) as log:
            assert len(await self._soon(log.read(0, 10))) == 0
            await log.append(1)
            assert len(await self._soon(log.read(1, 10))) == 0
            with log.tail(1) as tail:
                assert len(await self._soon(tail.read())) == 0

    async def test_a_tail_reads_all_that_is_there_at_once(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend(range(20))
            with log.tail() as tail:
                assert _data(await self._soon(tail.read())) == list(range(20))

    async def test_a_long_history_comes_in_batches(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend("x" * 4096 for _ in range(200))
            await log.close()
            with log.tail() as tail:
                batches = [len(entries) async for entries in tail]
            assert sum(batches) == 200
            assert len(batches) > 1

    async def test_a_tail_goes_on_from_a_cursor(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend([1, 2, 3])
            await log.close()
            cursor = Cursor.parse(str(log.cursor(2)))
            with log.tail(cursor) as tail:
                assert await self._rest(tail) == [3]
            with log.tail(log.end_cursor()) as tail:
                assert tail.ended
                assert await self._rest(tail) == []

    # Waiting

    async def test_a_waiting_tail_wakes_once_for_a_batch(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as tail:
                first = await self._waiting(anext(tail))
                await log.extend([1, 2, 3])
                assert _data(await self._soon(first)) == [1, 2, 3]
                second = await self._waiting(anext(tail))
                await log.append(4)
                assert _data(await self._soon(second)) == [4]

    async def test_every_waiting_tail_wakes(self) -> None:
        async with self.make_log(Retention()) as log:
            tails = [log.tail() for _ in range(10)]
            waiting = [await self._waiting(anext(tail)) for tail in tails]
            await log.append(1)
            assert [_data(await self._soon(batch)) for batch in waiting] == [[1]] * 10
            for tail in tails:
                tail.close()

    async def test_the_end_wakes_a_waiting_tail(self) -> None:
        async with self.make_log(Retention()) as log:
            tail = log.tail()
            waiting = await self._waiting(self._rest(tail))
            await log.close()
            assert await self._soon(waiting) == []
            assert tail.ended
            assert log.readers == 0

    async def test_a_waiting_tail_can_be_woken_for_nothing(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as tail:
                tail.wake()
                waiting = await self._waiting(tail.wait())
                tail.wake()
                await self._soon(waiting)
                assert len(await tail.read()) == 0

    async def test_a_cancelled_waiter_leaves_nothing_behind(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as cancelled, log.tail() as other:
                first = await self._waiting(cancelled.wait())
                second = await self._waiting(anext(other))
                first.cancel()
                await asyncio.wait([first])
                await log.append(1)
                assert _data(await self._soon(second)) == [1]
                assert _data(await self._soon(anext(cancelled))) == [1]
            assert not log._sleepers
            assert log.readers == 0

    async def test_history_then_live_has_no_gap_and_no_duplicate(self) -> None:
        total, writers, readers = 400, 4, 25
        chance = random.Random(7)
        async with self.make_log(Retention()) as log:
            reading: list[asyncio.Task[list[int]]] = []
            left = iter(range(total))

            async def write() -> None:
                for number in left:
                    if len(reading) < readers and chance.random() < 0.2:
                        tail = log.tail(chance.choice([0, log.top]))
                        reading.append(reading_group.create_task(self._offsets(tail, chance)))
                    await log.append(number)
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as reading_group:
                async with asyncio.TaskGroup() as writing_group:
                    for _ in range(writers):
                        writing_group.create_task(write())
                await log.close()
            for offsets in [task.result() for task in reading]:
                assert offsets == list(range(total - len(offsets) + 1, total + 1))
            assert len(reading) == readers
            assert log.readers == 0

    # Cursors that cannot be continued

    async def test_a_cursor_of_another_epoch_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend([1, 2])
            other = Cursor(log.stream, "another", 1)
            assert await self._after_reset(log, other, "epoch_changed") == [1, 2]

    async def test_a_cursor_of_another_stream_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            assert await self._after_reset(log, Cursor("another", log.epoch, 1), "epoch_changed") == [1]

    async def test_a_cursor_beyond_the_top_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            assert await self._after_reset(log, log.cursor(2), "ahead") == [1]

    async def test_a_trimmed_cursor_is_reset(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            await self._fill(log)
            kept = list(range(log.base + 1, log.top + 1))
            assert await self._after_reset(log, log.cursor(log.base - 1), "trimmed") == kept
            with log.tail(log.cursor(log.base)) as tail:
                assert _data(await tail.read()) == kept

    async def test_a_reader_that_falls_behind_what_is_kept_is_reset(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail() as tail:
                await self._fill(log)
                reset = await raised(LogReset, tail.read())
                assert (reset.reason, reset.resume) == ("trimmed", str(log.cursor(log.base)))
                assert (await raised(LogReset, log.read(0, 1))).name == log.name
            assert log.statistics().resets == 2

    # Retention

    async def test_retention_by_count_keeps_the_newest(self) -> None:
        async with self.make_log(Retention(count=10)) as log:
            await self._fill(log)
            entries, _ = log.size()
            assert 10 <= entries <= 10 + self.slack
            assert _data(await log.read(log.top - 10, 20)) == list(range(log.top - 9, log.top + 1))

    async def test_retention_by_size_keeps_the_newest(self) -> None:
        item = "x" * 98
        async with self.make_log(Retention(size=1_000)) as log:
            while log.base == 0:
                assert await log.append(item) <= 10 + self.slack + 1
            entries, size = log.size()
            assert size == 100 * entries
            assert 10 <= entries <= 10 + self.slack

    async def test_retention_by_age_lets_go_of_the_old(self) -> None:
        async with self.make_log(Retention(age=self.age)) as log:
            await log.extend(["old"] * (self.slack + 1))
            await asyncio.sleep(2 * self.age)
            await log.append("new")
            with log.tail() as tail:
                kept = _data(await tail.read())
            assert kept[-1] == "new"
            assert len(kept) <= self.slack
            assert log.base > 0

    async def test_the_newest_entry_is_always_kept(self) -> None:
        async with self.make_log(Retention(size=10, age=self.age)) as log:
            await log.append("x" * 100)
            await asyncio.sleep(2 * self.age)
            with log.tail() as tail:
                assert _data(await tail.read()) == ["x" * 100]

    # Flow policies

    async def test_latest_gives_the_newest_of_each_key(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.latest()) as tail:
                await log.extend([Event(1, "a"), Event(2, "b"), Event(3, "a"), 4, 5])
                assert [(entry.offset, entry.event) for entry in await tail.read()] == [(2, "b"), (3, "a"), (5, None)]
                await log.append(6)
                assert _data(await tail.read()) == [6]
            assert log.statistics().conflated == 2

    async def test_latest_passes_over_what_is_trimmed(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail(flow=Flow.latest(lambda entry: entry.offset)) as tail:
                await self._fill(log)
                assert _data(await tail.read()) == list(range(log.base + 1, log.top + 1))
            assert log.statistics().conflated == log.base

    async def test_drop_jumps_to_the_newest_and_counts(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.drop(3)) as tail:
                await log.extend([1, 2, 3])
                assert _data(await tail.read()) == [1, 2, 3]
                await log.extend([4, 5, 6, 7, 8])
                assert _data(await tail.read()) == [6, 7, 8]
                assert (tail.take_dropped(), tail.take_dropped()) == (2, 0)
            assert log.statistics().dropped == 2

    async def test_drop_passes_over_what_is_trimmed(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail(flow=Flow.drop(1 << 20)) as tail:
                await self._fill(log)
                assert _data(await tail.read()) == list(range(log.base + 1, log.top + 1))
                assert tail.take_dropped() == log.base

    async def test_disconnect_sends_a_slow_reader_away_at_its_place(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.disconnect(3)) as tail:
                await log.extend([1, 2, 3])
                assert _data(await tail.read()) == [1, 2, 3]
                await log.extend([4, 5, 6, 7])
                slow = await raised(SlowReader, tail.read())
                assert (slow.behind, slow.high, tail.position) == (4, 3, 3)

    async def test_history_from_before_the_reader_is_not_slowness(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend(range(10))
            with log.tail(flow=Flow.disconnect(3)) as patient, log.tail(flow=Flow.drop(3)) as dropping:
                await log.extend(range(10, 13))
                assert _data(await patient.read()) == list(range(13))
                assert _data(await dropping.read()) == list(range(13))
                assert dropping.take_dropped() == 0

    async def test_a_slow_reader_is_not_in_the_way_of_another(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as slow, log.tail() as fast:
                for number in range(5):
                    await log.append(number)
                    assert _data(await self._soon(fast.read())) == [number]
                assert _data(await slow.read()) == list(range(5))

    async def test_room_is_made_by_the_fastest_reader(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(), log.tail() as fast:
                await log.extend([1, 2])
                await self._soon(log.wait_room(3, without_readers=False))
                await log.append(3)
                waiting = await self._waiting(log.wait_room(3, without_readers=False))
                await fast.read()
                await self._soon(waiting)
                assert log.lag() == 0

    async def test_room_is_not_waited_for_without_readers_or_after_the_end(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail():
                await log.extend([1, 2])
                left = await self._waiting(log.wait_room(2, without_readers=False))
            await self._soon(left)
            waiting = await self._waiting(log.wait_room(2, without_readers=True))
            await log.close()
            await self._soon(waiting)
            await self._soon(log.wait_room(2, without_readers=True))

    async def test_a_cancelled_wait_for_room_leaves_nothing_behind(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as tail:
                await log.extend([1, 2])
                first = await self._waiting(log.wait_room(2, without_readers=False))
                first.cancel()
                await asyncio.wait([first])
                second = await self._waiting(log.wait_room(2, without_readers=False))
                await tail.read()
                await self._soon(second)

    async def test_a_reader_that_starts_live_leaves_room(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend([1, 2])
            with log.tail(log.top):
                await self._soon(log.wait_room(2, without_readers=False))

    # Statistics

    async def test_statistics_say_what_is_there(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.extend(["ab", "cd"])
            with log.tail():
                now = log.statistics()
            assert (now.name, now.state, now.base, now.top) == (log.name, "open", 0, 2)
            assert (now.entries, now.size, now.readers) == (2, 8, 1)
            assert (now.dropped, now.conflated, now.resets) == (0, 0, 0)
            await log.close()
            assert (log.statistics().state, log.statistics().readers) == ("done", 0)

    async def test_the_owner_hears_of_readers(self) -> None:
        async with self.make_log(Retention()) as log:
            counts: list[int] = []
            log.on_readers = lambda: counts.append(log.readers)
            first = log.tail()
            with log.tail():
                first.close()
                first.close()
            assert counts == [1, 2, 1, 0]

    # What the tests stand on

    async def _soon(self, awaitable: Awaitable[T]) -> T:
        async with asyncio.timeout(self.limit):
            return await awaitable

    async def _waiting(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that runs until it waits for something that has not happened yet."""
        task = asyncio.create_task(work)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done(), f"expected {task.get_coro()} to wait, but it is done"
        return task

    async def _rest(self, tail: Tail) -> list[Any]:
        async with asyncio.timeout(self.limit):
            return [entry.data async for entries in tail for entry in entries]

    async def _offsets(self, tail: Tail, chance: random.Random) -> list[int]:
        offsets: list[int] = []
        async for entries in tail:
            offsets += entries.offsets
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
        return offsets

    async def _after_reset(self, log: Log, cursor: Cursor, reason: str) -> list[Any]:
        """What a reader gets who goes on from where the reset of `cursor` says."""
        reset = await raised(LogReset, self._open(log, cursor))
        assert reset.reason == reason
        with log.tail(Cursor.parse(reset.resume)) as tail:
            return _data(await tail.read())

    async def _open(self, log: Log, cursor: Cursor) -> Tail:
        return log.tail(cursor)

    async def _fill(self, log: Log) -> None:
        """Append 1, 2, 3 … until something is trimmed."""
        most = (log.retention.count or 0) + self.slack + 1
        while log.base == 0:
            assert log.top < most, f"expected a log of {log.top} entries to be trimmed, but nothing was"
            await log.append(log.top + 1)


def _data(entries: Entries) -> list[Any]:
    return [entry.data for entry in entries]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message that an application received or sent, and when by `time.monotonic()`."""

    time: float
    direction: Literal["received", "sent"]
    message: Message


@dataclass(slots=True, eq=False)
class Exchange:
    """What an application did with one request or WebSocket."""

    scope: Message
    records: list[Recorded] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the application has returned or raised."""
    error: BaseException | None = None

    @property
    def received(self) -> list[Message]:
        return [record.message for record in self.records if record.direction == "received"]

    @property
    def sent(self) -> list[Message]:
        return [record.message for record in self.records if record.direction == "sent"]

    @property
    def status(self) -> int | None:
        """The HTTP status, None before there is one."""
        return self._start.get("status")

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers; of one sent several times, the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start.get("headers", ())}

    @property
    def batches(self) -> list[bytes]:
        """The pieces of the body, as they were sent; empty ones are left out."""
        bodies = [message.get("body", b"") for message in self.sent if message["type"] == "http.response.body"]
        return [body for body in bodies if body]

    @property
    def body(self) -> bytes:
        return b"".join(self.batches)

    @property
    def ended(self) -> bool:
        """Whether the application said that the body is complete."""
        return any(
            message["type"] == "http.response.body" and not message.get("more_body", False) for message in self.sent
        )

    @property
    def _start(self) -> Message:
        return next((message for message in self.sent if message["type"] == "http.response.start"), {})


class Recorder:
    """An ASGI application that runs another one and records every message, by request and WebSocket."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope)
        self.exchanges.append(exchange)

        async def recorded_receive() -> Any:
            message = await receive()
            exchange.records.append(Recorded(time.monotonic(), "received", message))
            return message

        async def recorded_send(message: Any) -> None:
            exchange.records.append(Recorded(time.monotonic(), "sent", message))
            await send(message)

        try:
            await self.app(scope, recorded_receive, recorded_send)
        except BaseException as error:
            exchange.error = error
            raise
        finally:
            exchange.done.set()

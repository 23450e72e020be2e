from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import tailrace.testing
from tailrace import Cursor, Log, LogStatistics, MemoryLog, Outcome, Retention
from tailrace.events import DONE, Entries, encode_event
from tailrace.log.base import BATCH_BYTES
from tailrace.testing import LogContract, Message, Recorder, raised
from tests.silence import silent_loop as silent_loop

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("silent_loop")


class Deaf(MemoryLog):
    """Wakes nobody."""

    def wake_readers(self) -> None:
        pass


class WakesOne(MemoryLog):
    def wake_readers(self) -> None:
        for sleeper in [*self._sleepers][:1]:
            sleeper.wake()


class WakesAgain(MemoryLog):
    """Lets readers run for each entry of a batch."""

    async def extend(self, items: Iterable[Any]) -> int:
        for event, json in [encode_event(item) for item in items]:
            self.write(event, json)
            await asyncio.sleep(0)
        return self.top


class HalfExtends(MemoryLog):
    async def extend(self, items: Iterable[Any]) -> int:
        for item in items:
            self.write(*encode_event(item))
        return self.top


class OpenEnded(MemoryLog):
    """Accepts appends after the end."""

    def write(self, event: str | None, json: bytes) -> None:
        outcome, self.outcome = self.outcome, None
        super().write(event, json)
        self.outcome = outcome


class LastOutcomeWins(MemoryLog):
    async def close(self, outcome: Outcome = DONE) -> Outcome:
        self.outcome = None
        return await super().close(outcome)


class Repeats(MemoryLog):
    """Reads the reader's last entry again."""

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        return super().read_nowait(max(after - 1, 0), limit, size)


class Skips(MemoryLog):
    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        return super().read_nowait(after, limit + 1, size)[1:]


class Limitless(MemoryLog):
    """Reads more entries than it should."""

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        return super().read_nowait(after, 1 << 30, size)


class Boundless(MemoryLog):
    """Reads more bytes than it should."""

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        return super().read_nowait(after, limit, 1 << 30)


class Untold(MemoryLog):
    """Does not tell listeners of its end."""

    def end(self, outcome: Outcome) -> Outcome:
        self._listeners = ()
        return super().end(outcome)


class Hoards(MemoryLog):
    """Trims nothing."""

    def _trim(self, count: int, size: int) -> None:
        pass


class KeepsNothing(MemoryLog):
    def write(self, event: str | None, json: bytes) -> None:
        super().write(event, json)
        if self.retention.count != Retention().count or self.retention.age:
            self._trim(len(self._json), 0)


class Gullible(MemoryLog):
    """Accepts any cursor as its own."""

    def resolve(self, cursor: Cursor) -> int:
        return cursor.offset


class Nameless(MemoryLog):
    def write(self, event: str | None, json: bytes) -> None:
        super().write(None, json)


class Closed(MemoryLog):
    """Makes no room for a blocked producer."""

    def make_room(self) -> None:
        pass


class Miscounts(MemoryLog):
    def statistics(self) -> LogStatistics:
        self.readers += 1
        return super().statistics()


def contract_of(kind: type[MemoryLog]) -> LogContract:
    class Contract(LogContract):
        limit = 0.2
        slack = 2
        age = 0.01

        @asynccontextmanager
        async def make_log(self, retention: Retention) -> AsyncIterator[Log]:
            yield kind("contract", retention)

    return Contract()


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Deaf, "a_waiting_tail_wakes_once_for_a_batch"),
        (Deaf, "the_end_wakes_a_waiting_tail"),
        (Deaf, "history_then_live_has_no_gap_and_no_duplicate"),
        (WakesOne, "every_waiting_tail_wakes"),
        (WakesAgain, "a_waiting_tail_wakes_once_for_a_batch"),
        (HalfExtends, "extend_appends_nothing_if_one_item_cannot_be_encoded"),
        (OpenEnded, "append_after_the_end_raises_and_appends_nothing"),
        (OpenEnded, "the_end_is_durable"),
        (LastOutcomeWins, "the_first_outcome_wins"),
        (Repeats, "read_is_bounded_by_after_and_limit"),
        (Repeats, "history_then_live_has_no_gap_and_no_duplicate"),
        (Skips, "an_entry_is_what_was_appended"),
        (Limitless, "read_is_bounded_by_after_and_limit"),
        (Boundless, "read_is_bounded_by_size_but_gives_one_entry"),
        (Boundless, "a_long_history_comes_in_batches"),
        (Boundless, "a_batch_of_few_large_entries_is_bounded_in_bytes"),
        (Untold, "a_listener_hears_of_readers_and_of_the_end"),
        (Hoards, "retention_by_count_keeps_the_newest"),
        (Hoards, "retention_by_size_keeps_the_newest"),
        (Hoards, "retention_by_age_drops_the_old"),
        (KeepsNothing, "retention_by_count_keeps_the_newest"),
        (KeepsNothing, "the_newest_entry_is_always_kept"),
        (Gullible, "a_cursor_of_another_epoch_is_reset"),
        (Gullible, "a_cursor_of_another_stream_is_reset"),
        (Gullible, "a_cursor_beyond_the_top_is_reset"),
        (Gullible, "a_trimmed_cursor_is_reset"),
        (Nameless, "an_entry_is_what_was_appended"),
        (Nameless, "latest_gives_the_newest_of_each_key"),
        (Closed, "room_is_made_by_the_fastest_reader"),
        (Closed, "room_is_not_waited_for_without_readers_or_after_the_end"),
        (Miscounts, "statistics_count_what_is_there"),
    ],
)
async def test_the_contract_finds_what_is_wrong_with_a_log(kind: type[MemoryLog], test: str) -> None:
    check: Callable[[], Awaitable[None]] = getattr(contract_of(kind), f"test_{test}")
    with pytest.raises((AssertionError, TimeoutError)):
        await check()


async def test_the_contract_asks_for_a_log() -> None:
    with pytest.raises(NotImplementedError, match="expected LogContract to define make_log"):
        await LogContract().test_the_first_outcome_wins()


async def test_raised_refuses_success() -> None:
    async def succeed() -> int:
        return 3

    with pytest.raises(AssertionError, match="expected ValueError, but got 3"):
        await raised(ValueError, succeed())


USERS_TEST = """
from contextlib import asynccontextmanager

import pytest

from tailrace import MemoryLog
from tailrace.log.base import BATCH_BYTES
from tailrace.testing import LogContract


@pytest.mark.anyio
class TestUsersLog(LogContract):
    slack = 2

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @asynccontextmanager
    async def make_log(self, retention):
        yield MemoryLog("users", retention)
"""


def test_the_contract_runs_under_anyio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USERS_TEST)
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error")
    tests = [name for name in dir(LogContract) if name.startswith("test_")]
    result.assert_outcomes(passed=len(tests))


MISCOUNTING_LOG = """

class Miscounts(MemoryLog):
    async def extend(self, items):
        return 1_000 + await super().extend(items)


class TestMiscounting(TestUsersLog):
    @asynccontextmanager
    async def make_log(self, retention):
        yield Miscounts("users", retention)
"""


@pytest.mark.parametrize("rewritten", [True, False])
def test_pytest_explains_failed_asserts_if_it_is_told_to(pytester: pytest.Pytester, rewritten: bool) -> None:
    if rewritten:
        pytester.makeconftest("import pytest\n\npytest.register_assert_rewrite('tailrace.testing')\n")
    path = pytester.makepyfile(USERS_TEST + MISCOUNTING_LOG)
    test = f"{path}::TestMiscounting::test_extend_gives_the_offset_of_the_last"
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error", test)
    result.assert_outcomes(failed=1)
    assert ("assert 1003 == 3" in result.stdout.str()) is rewritten


@pytest.mark.parametrize("name", tailrace.testing.__all__)
def test_a_tool_is_there_by_its_public_name(name: str) -> None:
    assert hasattr(tailrace.testing, name)


def test_it_is_no_part_of_the_library_and_needs_no_pytest() -> None:
    script = """
import sys
import tailrace
assert "tailrace.testing" not in sys.modules
import tailrace.testing
assert "pytest" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)


async def receive_request() -> Message:
    return {"type": "http.request", "body": b"?", "more_body": False}


class Client:
    """Records what an application sends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)


async def test_the_recorder_keeps_every_message_in_order_and_passes_it_on() -> None:
    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"x-b", b"2")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    recorder, client = Recorder(app), Client()
    await recorder({"type": "http", "path": "/a"}, receive_request, client.send)
    [exchange] = recorder.exchanges
    assert exchange.scope["path"] == "/a"
    assert exchange.received == [await receive_request()]
    assert exchange.sent == client.messages
    assert [record.direction for record in exchange.records] == ["received", "sent", "sent", "sent", "sent"]
    times = [record.time for record in exchange.records]
    assert times == sorted(times)
    assert exchange.status == 201
    assert exchange.headers == {"x-a": "1", "x-b": "2"}
    assert exchange.batches == [b"one", b"two"]
    assert exchange.body == b"onetwo"
    assert exchange.ended
    assert exchange.done.is_set()
    assert exchange.error is None


async def test_the_recorder_keeps_how_an_application_failed() -> None:
    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("lost")

    recorder, client = Recorder(app), Client()
    for path in ("/early", "/late"):
        with pytest.raises(LookupError):
            await recorder({"type": "http", "path": path}, receive_request, client.send)
    early, late = recorder.exchanges
    assert isinstance(early.error, LookupError)
    assert early.done.is_set()
    assert (early.status, early.headers, early.body, early.ended) == (None, {}, b"", False)
    assert (late.status, late.headers, late.body, late.ended) == (200, {}, b"half", False)


async def test_the_recorder_keeps_websockets_and_leaves_the_lifespan_alone() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        seen.append(scope["type"])
        await send({"type": "websocket.accept"})

    recorder, client = Recorder(app), Client()
    await recorder({"type": "lifespan"}, receive_request, client.send)
    await recorder({"type": "websocket"}, receive_request, client.send)
    assert seen == ["lifespan", "websocket"]
    assert [exchange.scope["type"] for exchange in recorder.exchanges] == ["websocket"]
    assert recorder.exchanges[0].sent == [{"type": "websocket.accept"}]

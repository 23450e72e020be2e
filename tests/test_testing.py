from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from unittest import SkipTest

import pytest

import tailrace.testing
from tailrace import Cursor, Log, LogStatistics, LogStore, MemoryLog, MemoryStore, Outcome, Retention
from tailrace.events import DONE, Entries
from tailrace.log.base import BATCH_BYTES, Row
from tailrace.log.memory import MemoryWriter
from tailrace.testing import LogContract, Message, Recorder, raised
from tests.silence import silent_loop as silent_loop
from tests.storing import MemoryContract

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

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        first = self.top + 1
        for row in rows:
            await super().add([row], fence=fence)
            await asyncio.sleep(0)
        return range(first, self.top + 1)


class HalfAppends(MemoryLog):
    """Appends the items before one that cannot be encoded."""

    async def append(self, *items: Any, fence: int | None = None, key: str | None = None) -> range:
        for item in items:
            await super().append(item, fence=fence)
        return range(self.top - len(items) + 1, self.top + 1)


class Misleads(MemoryLog):
    """Returns the offsets of items that others appended last."""

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        await super().add(rows, fence=fence, key=key)
        await asyncio.sleep(0)
        return range(self.top - len(rows) + 1, self.top + 1)


class KnowsNoKeys(MemoryLog):
    """Makes an append again."""

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        return await super().add(rows, fence=fence)


class KnowsNoKeysAtTheEnd(MemoryLog):
    """Appends nothing after the end, and does not say what it has."""

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        return range(0) if self.outcome is not None else await super().add(rows, fence=fence, key=key)


class OpenEnded(MemoryLog):
    """Accepts appends after the end."""

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        outcome, self.outcome = self.outcome, None
        offsets = await super().add(rows, fence=fence, key=key)
        self.outcome = outcome
        return offsets


class LastOutcomeWins(MemoryLog):
    async def close(self, outcome: Outcome = DONE, *, fence: int | None = None) -> Outcome:
        self.outcome = None
        return await super().close(outcome, fence=fence)


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

    async def resolve(self, cursor: Cursor) -> int:
        return cursor.offset


class Tagless(MemoryLog):
    """Does not look at the tag of a cursor."""

    async def has_tag(self, offset: int, tag: str) -> bool:
        return True


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


class Unfenced(MemoryLog):
    """Takes items from whoever has them."""

    def _check_fence(self, fence: int | None) -> None:
        pass


class Unstoppable(MemoryLog):
    async def stop(self) -> None:
        pass


class SeatsTheLast(MemoryLog):
    """Takes a claim whatever it replaces."""

    def claim_seat(self, seat: str, before: str) -> None:
        self.set_control(seat=seat)


class SeatsTheFirst(MemoryLog):
    """Takes no claim in place of another."""

    def claim_seat(self, seat: str, before: str) -> None:
        if not self.control.seat:
            self.set_control(seat=seat)


class StopsTheDead(MemoryLog):
    async def stop(self) -> None:
        self.set_control(stopping=True)


class Hasty(MemoryLog):
    """Tells its listeners nothing of its control."""

    def set_control(self, **facts: Any) -> None:
        self.control = replace(self.control, **facts)


class Remakes(MemoryStore):
    """Makes another log each time."""

    async def attach(self, name: str, retention: Retention) -> MemoryLog:
        self._held.pop(name, None)
        return await super().attach(name, retention)


class Overwrites(MemoryStore):
    """Makes a stream where there is a log."""

    async def create(
        self, name: str, retention: Retention, *, epoch: str | None = None, fingerprint: bytes = b""
    ) -> MemoryLog:
        self._held.pop(name, None)
        return await super().create(name, retention, epoch=epoch, fingerprint=fingerprint)


class Unprinted(MemoryStore):
    """Forgets the fingerprint of a request."""

    async def create(
        self, name: str, retention: Retention, *, epoch: str | None = None, fingerprint: bytes = b""
    ) -> MemoryLog:
        return await super().create(name, retention, epoch=epoch)


class LeasesTwice(MemoryStore):
    async def lease(self, log: Log) -> MemoryWriter:
        log.set_control(leased=False)
        return await super().lease(log)


class RepeatsFences(MemoryStore):
    """Gives each lease the same fence."""

    async def lease(self, log: Log) -> MemoryWriter:
        writer = await super().lease(log)
        log.set_control(fence=1)
        writer.fence = 1
        return writer


class WritesOn(MemoryStore):
    """Gives writers that write when they have given their lease back."""

    async def lease(self, log: Log) -> MemoryWriter:
        writer = await super().lease(log)
        writer._refuse = writer.write  # type: ignore[assignment, method-assign]
        return writer


class Drops(MemoryStore):
    """Forgets whatever has the name of a dropped log."""

    def _drop(self, log: Log) -> None:
        self._logs.pop(log.name, None)
        self._held.pop(log.name, None)


class DropsNothing(MemoryStore):
    async def drop(self, log: Log) -> None:
        pass


class ExpiresNothing(MemoryStore):
    async def expire(self, log: Log, seconds: float) -> None:
        pass


class ExpiresAll(MemoryStore):
    """Forgets logs that are in use."""

    async def expire(self, log: Log, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._keeper.forget, log)


class Impatient(MemoryContract):
    limit = 0.2
    age = 0.01


def contract_of(kind: type[MemoryLog] | type[MemoryStore]) -> LogContract:
    contract = Impatient()
    if issubclass(kind, MemoryLog):
        contract.log_type = kind
    else:
        contract.store_type = kind
    return contract


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Deaf, "items_that_were_appended_together_arrive_together"),
        (Deaf, "the_end_comes_after_the_last_entry"),
        (Deaf, "history_then_live_has_no_gap_and_no_duplicate"),
        (Deaf, "each_event_of_a_slow_generator_arrives"),
        (WakesOne, "every_waiting_tail_wakes"),
        (WakesAgain, "items_that_were_appended_together_arrive_together"),
        (HalfAppends, "append_takes_all_items_or_none"),
        (Misleads, "publishers_everywhere_share_one_order"),
        (KnowsNoKeys, "an_append_with_a_key_is_made_once"),
        (KnowsNoKeys, "of_appends_with_one_key_at_once_one_is_made"),
        (KnowsNoKeysAtTheEnd, "a_key_is_known_after_the_end"),
        (OpenEnded, "append_after_the_end_appends_nothing"),
        (OpenEnded, "an_end_is_found_by_whoever_comes_later"),
        (LastOutcomeWins, "the_first_outcome_stays"),
        (LastOutcomeWins, "of_two_ends_at_once_one_wins_everywhere"),
        (Repeats, "read_is_bounded_by_after_and_limit"),
        (Repeats, "history_then_live_has_no_gap_and_no_duplicate"),
        (Repeats, "a_reader_goes_on_from_any_cursor_in_any_process"),
        (Skips, "an_entry_is_what_was_appended"),
        (Limitless, "read_is_bounded_by_after_and_limit"),
        (Boundless, "read_is_bounded_by_size_but_gives_one_entry"),
        (Boundless, "a_long_history_comes_in_batches"),
        (Boundless, "a_batch_of_few_large_entries_is_bounded_in_bytes"),
        (Untold, "a_listener_hears_of_readers_and_of_the_end"),
        (Untold, "a_writer_learns_that_its_log_was_ended"),
        (Hoards, "retention_by_count_keeps_the_newest"),
        (Hoards, "retention_by_size_keeps_the_newest"),
        (Hoards, "retention_by_age_drops_the_old"),
        (KeepsNothing, "retention_by_count_keeps_the_newest"),
        (KeepsNothing, "the_newest_entry_is_always_kept"),
        (Gullible, "a_cursor_of_another_epoch_is_reset"),
        (Gullible, "a_cursor_of_another_stream_is_reset"),
        (Gullible, "a_cursor_beyond_the_top_is_reset"),
        (Gullible, "a_trimmed_cursor_is_reset"),
        (Tagless, "a_cursor_with_a_wrong_tag_is_reset"),
        (Nameless, "an_entry_is_what_was_appended"),
        (Nameless, "latest_gives_the_newest_of_each_key"),
        (Closed, "room_is_made_by_the_fastest_reader"),
        (Closed, "room_is_not_waited_for_without_readers_or_after_the_end"),
        (Miscounts, "statistics_count_what_is_there"),
        (Unfenced, "a_stream_belongs_to_its_writer"),
        (Unfenced, "a_log_without_a_writer_belongs_to_nobody"),
        (Unfenced, "a_writer_that_lost_its_lease_writes_nothing_more"),
        (Unstoppable, "a_stop_reaches_the_writer_from_any_process"),
        (Unstoppable, "a_stop_is_found_by_a_process_that_comes_later"),
        (SeatsTheLast, "a_claim_replaces_only_the_one_that_it_names"),
        (SeatsTheFirst, "a_claim_replaces_only_the_one_that_it_names"),
        (SeatsTheFirst, "of_two_claims_at_once_one_succeeds_everywhere"),
        (StopsTheDead, "a_stop_after_the_end_does_nothing"),
        (Hasty, "a_stop_reaches_the_writer_from_any_process"),
        (Remakes, "processes_find_one_log_by_its_name"),
        (Remakes, "processes_that_attach_at_once_have_one_log"),
        (Overwrites, "of_two_that_make_a_stream_at_once_one_does"),
        (Overwrites, "a_stream_is_not_made_where_a_log_is"),
        (Unprinted, "of_two_that_make_a_stream_at_once_one_does"),
        (LeasesTwice, "a_stream_belongs_to_its_writer"),
        (LeasesTwice, "of_two_leases_at_once_one_is_given"),
        (RepeatsFences, "a_writer_that_lost_its_lease_writes_nothing_more"),
        (WritesOn, "what_was_written_before_a_release_is_stored"),
        (WritesOn, "a_writer_that_lost_its_lease_writes_nothing_more"),
        (Drops, "a_log_that_is_dropped_is_gone_everywhere"),
        (DropsNothing, "a_log_that_is_dropped_is_gone_everywhere"),
        (ExpiresNothing, "a_log_that_nobody_uses_expires"),
        (ExpiresAll, "a_log_that_is_used_anywhere_does_not_expire"),
        (ExpiresAll, "a_later_expiry_counts"),
    ],
)
async def test_the_contract_finds_what_is_wrong(kind: type[MemoryLog] | type[MemoryStore], test: str) -> None:
    check: Callable[[], Awaitable[None]] = getattr(contract_of(kind), f"test_{test}")
    with pytest.raises((AssertionError, TimeoutError)):
        await check()


async def test_the_contract_asks_for_what_it_needs() -> None:
    with pytest.raises(NotImplementedError, match="expected LogContract to define open_stores"):
        await LogContract().test_the_first_outcome_stays()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("disconnect", "news_that_came_while_the_connection_was_lost_arrives"),
        ("kill", "a_stream_whose_process_died_ends"),
        ("refuse", "an_end_that_is_refused_for_good_is_told"),
        ("rollback", "a_cursor_of_a_lost_entry_is_reset"),
    ],
)
async def test_the_contract_asks_for_a_fault_or_a_reason(fault: str, test: str) -> None:
    class Silent(MemoryContract):
        cannot: ClassVar = {}

    asked = f"expected Silent to define {fault}, or to give a reason in `cannot`: {{'{fault}': …}}"
    with pytest.raises(NotImplementedError, match=re.escape(asked)):
        await getattr(Silent(), f"test_{test}")()


async def test_a_fault_that_cannot_happen_is_skipped_with_its_reason() -> None:
    with pytest.raises(SkipTest, match="kill cannot happen: its readers die with its writers"):
        await Impatient().test_a_stream_whose_process_died_ends()


async def test_a_reason_is_given_only_for_a_fault_that_is_not_defined() -> None:
    class Both(MemoryContract):
        async def kill(self, store: LogStore) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match="expected Both to define kill or to name it in `cannot`, but got both"):
        await Both().test_a_stream_whose_process_died_ends()


async def test_a_reason_for_an_unknown_fault_is_refused() -> None:
    class Misspelt(MemoryContract):
        cannot: ClassVar = {"rolback": "it forgets nothing"}

    with pytest.raises(TypeError, match=r"cannot to name disconnect, kill, refuse, rollback, but got \['rolback'\]"):
        await Misspelt().test_a_stream_whose_process_died_ends()


async def test_raised_refuses_success() -> None:
    async def succeed() -> int:
        return 3

    with pytest.raises(AssertionError, match="expected ValueError, but got 3"):
        await raised(ValueError, succeed())


USERS_TEST = """
from contextlib import asynccontextmanager

import pytest

from tailrace import MemoryLog, MemoryStore
from tailrace.testing import LogContract


@pytest.mark.anyio
class TestUsersStore(LogContract):
    slack = 2
    cannot = dict.fromkeys(("disconnect", "kill", "refuse", "rollback"), "it is in memory")

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @asynccontextmanager
    async def open_stores(self):
        store = MemoryStore()
        yield store, store
        await store.aclose()
"""


def test_the_contract_runs_under_anyio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USERS_TEST)
    result = pytester.runpytest_subprocess("-rs", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error")
    tests = [name for name in dir(LogContract) if name.startswith("test_")]
    broken = [name for name in tests if "self._needs(" in inspect.getsource(getattr(LogContract, name))]
    result.assert_outcomes(passed=len(tests) - len(broken), skipped=len(broken))
    result.stdout.fnmatch_lines(["SKIPPED*rollback cannot happen: it is in memory"])


MISCOUNTING_LOG = """

class Miscounts(MemoryLog):
    async def add(self, rows, *, fence=None, key=None):
        return [1_000 + offset for offset in await super().add(rows, fence=fence, key=key)]


class TestMiscounting(TestUsersStore):
    @asynccontextmanager
    async def open_stores(self):
        store = MemoryStore()
        store.log_type = Miscounts
        yield store, store
"""


@pytest.mark.parametrize("rewritten", [True, False])
def test_pytest_explains_failed_asserts_if_it_is_told_to(pytester: pytest.Pytester, rewritten: bool) -> None:
    if rewritten:
        pytester.makeconftest("import pytest\n\npytest.register_assert_rewrite('tailrace.testing')\n")
    path = pytester.makepyfile(USERS_TEST + MISCOUNTING_LOG)
    test = f"{path}::TestMiscounting::test_append_gives_the_offsets_of_its_items"
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error", test)
    result.assert_outcomes(failed=1)
    assert ("assert [1001] == [1]" in result.stdout.str()) is rewritten


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
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=100)


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

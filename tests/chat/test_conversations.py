"""What is kept of a turn when the database, a stop or the end of the server come in between."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tailrace import Engine, Log, LogExists, StoreUnavailable
from tailrace.chat import answers, store
from tailrace.chat.conversations import Conversations
from tailrace.chat.errors import SessionBusy, SessionNotFound
from tailrace.chat.journal import Journal
from tailrace.chat.journal import session_id as logged_session
from tailrace.chat.metrics import Metrics, Observer
from tailrace.chat.models.base import Model, ModelError
from tailrace.chat.store import NewTurn, Store, Turn, open_store
from tailrace.chat.turns import Question
from tailrace.chat.wire import end_of
from tests.chat.api.talking import JSON, Hold, Scripted, begun, body, chatting, lines, settings, text, within
from tests.chat.counting import counted
from tests.raw import BOUND
from tests.silence import silent_loop
from tests.sources import turns

pytestmark = pytest.mark.usefixtures(silent_loop.__name__)

REFUSE = """
    CREATE TRIGGER refuse BEFORE UPDATE ON tailrace_turns BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END
"""


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    """The server's database through another connection; what is done there is committed."""
    with closing(sqlite3.connect(folder / "chat.sqlite3")) as connection, connection:
        yield connection


# Through the whole server


async def test_a_reply_that_cannot_be_stored_is_said_to_have_failed_and_stored_later(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one ", "two")) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        with database(tmp_path) as db:
            db.execute(REFUSE)
        async with chat.saying("Hello", session_id) as reply:
            *objects, final, error = lines(await reply.rest())
        assert not reply.whole
        assert final["is_final"]
        assert (error["type"], error["code"]) == ("error", "storage_failed")
        assert text(objects) == "one two"
        failed = await chat.post("/chat/stream", 500, json=body("Again", session_id), headers=JSON)
        assert failed["code"] == "storage_failed"
        # The server lives, the session is free, and both are stored as soon as that is possible.
        assert await chat.replies(session_id) == [("one two", "failed")] * 2
        assert (await chat.get("/health"))["active_streams"] == 0
        assert counted(chat.app.state.metrics, "tailrace_turns_total", "state") == {"failed": 2}
        with database(tmp_path) as db:
            db.execute("DROP TRIGGER refuse")
        assert text(await chat.say("Now", session_id)) == "one two"
        async with asyncio.timeout(BOUND):
            while (await chat.replies(session_id))[0][1] == "failed":  # noqa: ASYNC110 - nobody says it
                await asyncio.sleep(0.05)
        assert await chat.replies(session_id) == [("one two", "complete")] * 3


async def test_what_could_not_be_stored_is_tried_again_at_the_end(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one ", "two")) as chat:
        with database(tmp_path) as db:
            db.execute(REFUSE)
        refused = await chat.post("/chat/stream", 500, json=body("Hello", None), headers=JSON)
        with database(tmp_path) as db:
            db.execute("DROP TRIGGER refuse")
    async with chatting(tmp_path, Scripted()) as chat:
        assert await chat.replies(refused["data"][0]["session_id"]) == [("one two", "complete")]


async def test_replies_that_are_lost_at_the_end_are_told(tmp_path: Path) -> None:
    streams: list[str] = []

    async def lose() -> None:
        async with talking(tmp_path, Scripted("one ", "two")) as (talk, _, _):
            with database(tmp_path) as db:
                db.execute(REFUSE)
            for _ in range(3):
                log = await talk.ask(Question("", "Hello"))
                await read(log)
                streams.append(stream_of(log))

    with pytest.raises(store.StoreError) as told:
        await lose()
    lost = f"did not take 3 replies, which are lost: {', '.join(streams)}"
    assert str(told.value) == f"{tmp_path / 'chat.sqlite3'}: {lost}"


async def test_a_reply_that_is_neither_stored_nor_in_progress_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_UNSTORED", 1)
    async with chatting(tmp_path, Scripted("one ", "two")) as chat:
        with database(tmp_path) as db:
            db.execute(REFUSE)
        for _ in range(2):
            await chat.post("/chat/stream", 500, json=body("Hello", "abc123"), headers=JSON)
        assert await chat.replies("abc123") == [("", "interrupted"), ("one two", "failed")]
        assert (await chat.get("/sessions/abc123"))["stream_id"] is None
        with database(tmp_path) as db:
            db.execute("DROP TRIGGER refuse")


async def test_a_stop_that_cannot_be_stored_is_told(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat, chat.saying("Hello") as reply:
        [info, *_] = await begun(reply)
        with database(tmp_path) as db:
            db.execute("ALTER TABLE tailrace_turns RENAME TO elsewhere")
        refusal = await chat.post(f"/chat/stream/{info['stream_id']}/stop", 503)
        assert refusal["code"] == "storage_failed"
        error = lines(await reply.rest())[-1]
        assert (error["type"], error["code"]) == ("error", "storage_failed")
        with database(tmp_path) as db:
            db.execute("ALTER TABLE elsewhere RENAME TO tailrace_turns")
        failed = await chat.get(f"/chat/stream/{info['stream_id']}", 500, headers=JSON)
        assert (failed["code"], text(failed["data"])) == ("storage_failed", "one ")
        assert (await chat.get("/health"))["status"] == "healthy"


async def test_a_message_that_cannot_be_stored_is_not_asked(tmp_path: Path) -> None:
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        with database(tmp_path) as db:
            db.execute("ALTER TABLE tailrace_turns RENAME TO elsewhere")
        for accept in (JSON, {}):
            refusal = await chat.post("/chat/stream", 503, json=body("Hello", None), headers=accept)
            assert refusal["code"] == "storage_failed"
        assert not model.asked
        with database(tmp_path) as db:
            db.execute("ALTER TABLE elsewhere RENAME TO tailrace_turns")
        assert (await chat.get("/sessions"))["total"] == 0
        await chat.say("Hello")


# By itself


@asynccontextmanager
async def talking(folder: Path, model: Model) -> AsyncIterator[tuple[Conversations, Engine, Store]]:
    chosen = settings(folder)
    engine = Engine()
    async with open_store(chosen.database_url) as store:
        talk = Conversations(engine, store, model, Observer(Metrics(), Journal()), chosen)
        async with talk.running():
            try:
                yield talk, engine, store
            finally:
                await engine.aclose()


async def read(log: Log) -> list[dict[str, object]]:
    """All objects of a reply, the last of which is the end."""
    async with asyncio.timeout(BOUND):
        with log.tail() as tail:
            objects = [entry.data async for batch in tail for entry in batch]
    assert log.outcome is not None
    return [*objects, end_of(log.outcome)]


async def up_to(log: Log, text: str) -> None:
    """Until a chunk with this text has been written."""
    async with asyncio.timeout(BOUND):
        with log.tail() as tail:
            async for batch in tail:
                if any(entry.data.get("text") == text for entry in batch):
                    return


def stream_of(log: Log) -> str:
    return log.name.rpartition("/")[2]


async def test_a_stop_before_the_model_was_asked_is_heard(tmp_path: Path) -> None:
    model = Scripted()
    async with talking(tmp_path, model) as (talk, _, _):
        asking = asyncio.create_task(talk.ask(Question("", "Hello", "s")))
        await asyncio.sleep(0)  # it waits for the database now
        live = talk._answers.of_session("s", "")
        assert live is not None
        await asyncio.sleep(0)  # its log is made
        await live.log.stop()  # as another worker does
        log = await asking
        assert (await talk.stop("", stream_of(log))).state == "stopped"
        [end] = await read(log)
        assert (end["type"], end["code"]) == ("error", "stopped")
    assert not model.asked


async def test_of_messages_to_one_session_at_once_one_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, Scripted("one ", "two")) as (talk, engine, _):
        make = engine.new_stream

        async def make_slowly(*args: Any, **options: Any) -> Log:
            await asyncio.sleep(0.01)  # as a server does that keeps the streams elsewhere
            return await make(*args, **options)

        monkeypatch.setattr(engine, "new_stream", make_slowly)
        questions = [Question("", "Hello", "s", idempotency_key="k")] * 2 + [Question("", "Hi", "s")] * 2
        first, repeated, *others = await asyncio.gather(*map(talk.ask, questions), return_exceptions=True)
        assert isinstance(first, Log)
        assert repeated is first
        assert [type(other) for other in others] == [SessionBusy] * 2
        assert (await read(first))[-1]["state"] == "complete"
        assert (await talk.session("", "s")).turns == 1


async def test_a_message_whose_stream_cannot_be_made_leaves_its_session_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any, **options: Any) -> Log:
        raise StoreUnavailable("the log", "the test refuses this")

    async with talking(tmp_path, Scripted("one ", "two")) as (talk, engine, _):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "new_stream", fail)
            with pytest.raises(StoreUnavailable):
                await talk.ask(Question("", "Hello", "s"))
        assert (await read(await talk.ask(Question("", "Hello", "s"))))[-1]["state"] == "complete"


async def test_a_message_that_is_refused_while_its_stream_cannot_be_forgotten_leaves_its_session_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any, **options: Any) -> None:
        raise StoreUnavailable("the log", "the test refuses this")

    async with talking(tmp_path, Scripted("one ", "two")) as (talk, engine, _):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "forget", fail)
            questions = [Question("", "Hello", "s", create=False)] * 2
            async with asyncio.timeout(BOUND):
                refusals = await asyncio.gather(*map(talk.ask, questions), return_exceptions=True)
            assert [type(refusal) for refusal in refusals] == [store.SessionNotFound] * 2
        assert (await read(await talk.ask(Question("", "Hello", "s"))))[-1]["state"] == "complete"


async def test_a_session_that_is_just_beginning_its_turn_is_stopped_all_the_same(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, _):
        session = await talk.create("")
        asking = asyncio.create_task(talk.ask(Question("", "Hello", session.id)))
        await asyncio.sleep(0)  # it waits for the database now
        assert await talk.stream_of("", session.id) is None
        await talk.clear("", session.id)
        log = await asking
        assert (await read(log))[-1]["state"] == "stopped"
        assert talk.active == 0


async def test_a_message_that_a_clearing_overtakes_is_stopped(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, store):
        first = await talk.ask(Question("", "Hello"))
        await within(held.reached)
        session_id = (await first.read(0, 1))[0].data["session_id"]

        async def ask_again() -> Log:
            await up_to(first, "")  # the end is being stored
            async with asyncio.timeout(BOUND):
                while await talk.stream_of("", session_id) is not None:  # noqa: ASYNC110 - nobody says it
                    await asyncio.sleep(0)
            return await talk.ask(Question("", "Again", session_id))

        asking = asyncio.create_task(ask_again())
        await talk.clear("", session_id)
        second = await asking
        assert second.outcome is not None  # nothing goes on that is stored nowhere
        assert (await read(second))[-1]["state"] == "stopped"
        assert (await store.turns(session_id, "", limit=10)).items == []


async def test_a_message_after_a_clearing_goes_on(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, store):
        session = await talk.create("")
        clearing = asyncio.create_task(talk.clear("", session.id))
        await asyncio.sleep(0)  # it has found nothing to stop, and waits for the database
        log = await talk.ask(Question("", "Hello", session.id))
        await clearing
        assert log.outcome is None
        assert await store.find_turn(stream_of(log), "") is not None
        held.release.set()
        assert (await read(log))[-1]["state"] == "complete"


async def test_the_log_is_told_which_session_a_request_is_about(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, _):
        log = await talk.ask(Question("", "Hello"))
        await up_to(log, "one ")
        stream_id = stream_of(log)
        session_id = (await log.read(0, 1))[0].data["session_id"]
        requests: list[Callable[[], Awaitable[object]]] = [
            lambda: talk.find("", stream_id),
            lambda: talk.stop("", stream_id),
            lambda: talk.find("", stream_id),
            lambda: talk.session("", session_id),
            lambda: talk.clear("", session_id),
            lambda: talk.delete("", session_id),
        ]
        for request in requests:
            assert await asyncio.create_task(_logged(request)) == session_id


async def _logged(request: Callable[[], Awaitable[object]]) -> str | None:
    logged_session.set(None)
    await request()
    return logged_session.get()


async def test_another_owner_cannot_be_in_the_way(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, _):
        session = await talk.create("alice")
        foreign, own = (
            asyncio.create_task(talk.ask(Question(owner, "Hello", session.id, "k", create=False)))
            for owner in ("bob", "alice")
        )
        with pytest.raises(store.SessionNotFound):
            await foreign
        log = await own
        assert await talk.stream_of("bob", session.id) is None
        with pytest.raises(SessionNotFound):
            await talk.delete("bob", session.id)
        held.release.set()
        assert (await read(log))[-1]["state"] == "complete"


async def test_a_stop_while_the_end_is_stored_does_not_undo_it(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted("one ", "two")) as (talk, engine, store):
        log = await talk.ask(Question("", "Hello"))
        with database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")  # so that storing has to wait
            await up_to(log, "")
            stopping = asyncio.create_task(engine.stop(log))
            await asyncio.sleep(0)
        await stopping
        turn = await store.find_turn(stream_of(log), "")
        assert turn is not None
        assert (turn.state, turn.reply) == ("complete", "one two")
        assert (await read(log))[-1]["type"] == "complete"


async def test_the_end_of_the_server_while_a_reply_is_stored_does_not_undo_it(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat:
        async with chat.saying("Hello", "abc123") as reply:
            await begun(reply)
            await within(held.reached)
            with database(tmp_path) as other:
                other.execute("BEGIN IMMEDIATE")  # the end of the reply has to wait
                held.release.set()
                read = await begun(reply, '"is_final":true')
                chat.app.state.tailrace_engine.drain(grace=0)
                await asyncio.sleep(0)
            read += lines(await reply.rest())
        assert [each["type"] for each in read] == ["chunk", "complete"]
        assert reply.whole
        assert (await chat.replies("abc123"))[-1] == ("one ", "complete")


@pytest.mark.parametrize("accept", [None, "text/event-stream"])
async def test_a_reply_that_the_end_of_the_server_cuts_is_broken_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, accept: str | None
) -> None:
    caplog.set_level(logging.INFO, logger="tailrace.chat")
    held = Hold()
    fields = {"Accept": accept} if accept else {}
    async with chatting(tmp_path, Scripted("one ", held)) as chat, chat.saying("Hello", **fields) as reply:
        await reply.until(b"one ")
        await within(held.reached)
        chat.app.state.tailrace_engine.drain(grace=0)
        rest = await reply.rest()
        assert b'"interrupted"' in rest
        assert b'"complete"' not in rest
        assert not reply.whole
    assert "POST /chat/stream: 200, broken off" in caplog.text
    assert "stream interrupted: 1 chunks" in caplog.text


async def test_a_stop_while_a_failure_is_stored_does_not_hide_it(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one ", held, ModelError("no", code="model_error"))
    async with talking(tmp_path, model) as (talk, _, store):
        log = await talk.ask(Question("", "Hello"))
        await within(held.reached)
        with database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")  # so that storing has to wait
            held.release.set()
            async with asyncio.timeout(BOUND):
                while not model.closed:  # noqa: ASYNC110 - nobody says it
                    await asyncio.sleep(0)
            stopping = asyncio.create_task(talk.stop("", stream_of(log)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the stop has been sent
        assert (await stopping).state == "failed"
        last = (await read(log))[-1]
        assert (last["type"], last["code"]) == ("error", "model_error")
        turn = await store.find_turn(stream_of(log), "")
        assert turn is not None
        assert (turn.state, turn.error_code) == ("failed", "model_error")


async def test_a_reply_that_the_end_of_the_server_cuts_is_interrupted(tmp_path: Path) -> None:
    held = Hold()
    async with open_store(settings(tmp_path).database_url) as store:
        engine = Engine(shutdown_grace=0)
        talk = Conversations(engine, store, Scripted("one ", held), Observer(Metrics(), Journal()), settings(tmp_path))
        async with talk.running():
            log = await talk.ask(Question("", "Hello"))
            await within(held.reached)
            await engine.aclose()
        assert log.outcome is not None
        assert log.outcome.code == "shutdown"
        turn = await store.find_turn(stream_of(log), "")
        assert turn is not None
        assert (turn.state, turn.reply) == ("interrupted", "one ")


async def test_a_model_that_ignores_its_stop_is_given_up(tmp_path: Path) -> None:
    class Deaf(Scripted):
        async def reply(self, conversation):  # type: ignore[no-untyped-def]
            yield "one "
            for _ in range(2):
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async with talking(tmp_path, Deaf()) as (talk, engine, store):
        log = await talk.ask(Question("", "Hello"))
        producer = engine.producer(log)
        assert producer is not None
        await up_to(log, "one ")
        producer._patience = 0.05  # the engine's own is five seconds
        turn = await talk.stop("", stream_of(log))
        assert (turn.state, turn.reply) == ("stopped", "one ")
        assert await store.find_turn(stream_of(log), "") == turn


async def test_what_is_being_written_is_stored_in_between(tmp_path: Path) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held)) as (talk, _, store):
        log = await talk.ask(Question("", "Hello"))
        async with asyncio.timeout(BOUND):
            # Nobody says that something was stored in between.
            while (turn := await store.find_turn(stream_of(log), "")) is None or not turn.reply:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (turn.state, turn.reply, turn.chunks) == ("generating", "one ", 1)
        held.release.set()
        await read(log)


async def test_a_checkpoint_that_fails_is_no_end_of_the_reply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = Hold()
    async with talking(tmp_path, Scripted("one ", held, "two")) as (talk, _, store):
        log = await talk.ask(Question("", "Hello"))
        with database(tmp_path) as db:
            db.execute(REFUSE)
        async with asyncio.timeout(BOUND):
            while "checkpoint of 1 replies failed" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        with database(tmp_path) as db:
            db.execute("DROP TRIGGER refuse")
        held.release.set()
        assert (await read(log))[-1]["type"] == "complete"
        turn = await store.find_turn(stream_of(log), "")
        assert turn is not None
        assert turn.reply == "one two"


class Failing(Store):
    """Raises what no store should: once for a checkpoint, and always for the end of a reply that is not stopped."""

    def __init__(self, store: Store) -> None:
        super().__init__(store._database)
        self.checkpoints = 0

    async def checkpoint(self, turns: Sequence[tuple[int, str, int]], worker: str | None = None) -> None:
        self.checkpoints += 1
        if self.checkpoints == 1:
            raise KeyError("checkpoint")
        await super().checkpoint(turns, worker)

    async def end_turn(self, turn: Turn) -> bool:
        if turn.state == "interrupted":
            raise KeyError("end")
        return await super().end_turn(turn)


async def test_what_nobody_foresaw_is_logged_and_ends_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Scripted):
        async def reply(self, conversation):  # type: ignore[no-untyped-def]
            yield "one "
            for _ in range(2):
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async with open_store(settings(tmp_path).database_url) as store:
        failing, engine = Failing(store), Engine(shutdown_grace=0)
        talk = Conversations(engine, failing, Deaf(), Observer(Metrics(), Journal()), settings(tmp_path))
        async with talk.running():
            log = await talk.ask(Question("", "Hello"))
            async with asyncio.timeout(BOUND):
                while (turn := await store.find_turn(stream_of(log), "")) is None or not turn.reply:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert failing.checkpoints > 1
            producer = engine.producer(log)
            assert producer is not None
            producer._patience = 0.05  # the engine's own is five seconds
            await engine.aclose()
    assert "the checkpoint of 1 replies failed" in caplog.text
    assert "the end of the reply raised" in caplog.text


async def test_two_who_find_a_forgotten_reply_at_once_get_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, Scripted("one")) as (talk, engine, _):
        log = await talk.ask(Question("", "Hello"))
        await read(log)
        await engine.forget(log)
        find = engine.find

        async def find_late(name: str) -> Log | None:
            found = await find(name)
            await turns(20)
            return found

        monkeypatch.setattr(engine, "find", find_late)
        first, second = await asyncio.gather(*(talk.find("", stream_of(log)) for _ in range(2)))
        assert first is second is not log


async def test_a_reply_whose_forgotten_log_still_ends_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(*_: object, **options: object) -> Log:
        raise LogExists("taken")

    async with talking(tmp_path, Scripted("one")) as (talk, engine, _):
        log = await talk.ask(Question("", "Hello"))
        await read(log)
        await engine.forget(log)
        monkeypatch.setattr(engine, "new_stream", taken)
        with pytest.raises(LogExists):
            await talk.find("", stream_of(log))


async def test_what_an_earlier_server_left_is_interrupted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(settings(tmp_path).database_url) as left_generating:
        new = NewTurn("session", "S" * 22, None, "Hello", "m", 0.0)
        limits = {"session_limit": 1, "turn_limit": 1, "context_turns": 1}
        await left_generating.begin_turn(new, "", create=True, **limits)
    async with talking(tmp_path, Scripted()) as (talk, _, _):
        objects = await read(await talk.find("", "S" * 22))
        assert [each["type"] for each in objects] == ["session_info", "status", "error"]
    assert "replies that the last end of the server interrupted: 1" in caplog.text

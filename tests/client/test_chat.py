from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tailrace import DecodeError
from tailrace.chat.app import create_app
from tailrace.chat.settings import ChatSettings
from tailrace.client import (
    AsyncChat,
    Chat,
    ChatClient,
    ChatObject,
    Chunk,
    Complete,
    Reasoning,
    Retry,
    SessionBusy,
    SessionChange,
    SessionInfo,
    Status,
    StreamRefused,
    TurnNotLast,
    Unreachable,
)
from tailrace.testing import Fault, Relay, relayed
from tests.client.drivers import AT_ONCE
from tests.serving import serving


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    settings = ChatSettings.model_validate(
        {"model": "demo", "database": str(tmp_path / "chat.sqlite3"), "demo_pace": 0.002, "api_keys": "key"}
    )
    async with serving(create_app(settings)) as url, relayed(url) as relay:
        yield relay


@pytest.fixture
async def chat(relay: Relay) -> AsyncIterator[AsyncChat]:
    async with ChatClient(relay.url, api_key="key", retry=AT_ONCE) as chat:
        yield chat


async def test_a_reply_is_typed_objects(chat: AsyncChat) -> None:
    async with chat.stream("hello") as reply:
        objects = [each async for each in reply]
    info, status, *chunks, complete = objects
    assert isinstance(info, SessionInfo)
    assert isinstance(status, Status)
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert isinstance(complete, Complete)
    assert complete.total_chunks == len(chunks)
    assert info.model == "demo"
    assert all(each.id is not None for each in objects)
    async with chat.resume(info.stream_id, after=chunks[-2].id) as rest:
        assert [each async for each in rest] == [chunks[-1], complete]
    async with chat.resume(info.stream_id) as again:
        assert [each async for each in again] == objects


async def test_a_reply_survives_cuts_anywhere_and_is_asked_once(relay: Relay, chat: AsyncChat) -> None:
    session = await chat.new_session()
    for turns, count in enumerate((10, 300, 700, 1_000, 1_777), start=1):
        relay.next(*[Fault(after=count)] * 3)
        reply = await chat.ask("again", session.session_id)
        assert reply.message_count == 2 * turns
        details = await chat.session(session.session_id, limit=1)
        assert details.messages[-1].text == reply.text
        assert details.messages[-1].total_chunks == reply.total_chunks


async def test_reasoning_goes_on_after_a_cut(relay: Relay, chat: AsyncChat) -> None:
    relay.next(*[Fault(after=count) for count in (900, 1_200, 1_500)])
    async with chat.stream("think of a short word", reasoning=True) as reply:
        objects = [each async for each in reply]
    async with chat.resume(objects[0].id.split(".")[0], reasoning=True) as whole:  # type: ignore[union-attr]
        assert [each async for each in whole] == objects
    assert len([each for each in objects if isinstance(each, Reasoning)]) > 5


async def test_a_session_that_is_answering_is_busy_until_it_is_stopped(chat: AsyncChat) -> None:
    async with chat.stream("hello") as reply:
        info = await anext(reply)
        assert isinstance(info, SessionInfo)
        with pytest.raises(SessionBusy) as refused:
            await chat.ask("more", info.session_id)
        assert (refused.value.session_id, refused.value.stream_id) == (info.session_id, info.stream_id)
        stopped = await chat.stop(info.stream_id)
        assert (stopped.session_id, stopped.state) == (info.session_id, "stopped")
        *_, last = [each async for each in reply]
    assert isinstance(last, Complete)
    assert last.state == "stopped"


async def test_a_reply_is_stopped_by_its_own_stream_too(chat: AsyncChat) -> None:
    async with chat.stream("hello") as reply:
        await anext(reply)
        await reply.stop()
        *_, last = [each async for each in reply]
    assert isinstance(last, Complete)
    assert last.state == "stopped"


async def test_the_last_turn_is_replaced(chat: AsyncChat) -> None:
    first = await chat.ask("hello", "s")
    second = await chat.ask("short table", "s", replace=first.stream_id)
    assert second.message_count == 2
    details = await chat.session("s")
    assert [each.stream_id for each in details.messages] == [second.stream_id] * 2
    with pytest.raises(TurnNotLast) as refused:
        await chat.ask("hello", "s", replace=first.stream_id)
    assert (refused.value.status, refused.value.stream_id) == (409, second.stream_id)
    await chat.clear("s")
    with pytest.raises(TurnNotLast) as refused:
        await chat.ask("hello", "s", replace=second.stream_id)
    assert refused.value.stream_id is None


async def test_a_replacement_survives_cuts_and_happens_once(relay: Relay, chat: AsyncChat) -> None:
    replaced = (await chat.ask("short", "s")).stream_id
    for count in (1, 200, 900):
        relay.next(*[Fault(after=count)] * 3)
        reply = await chat.ask("short again", "s", replace=replaced)
        assert reply.message_count == 2
        assert (await chat.session("s")).messages[-1].text == reply.text
        replaced = reply.stream_id


async def test_sessions_are_renamed_and_searched(chat: AsyncChat) -> None:
    for message in ("short pears", "short plums", "short apples"):
        await chat.ask(message)
    [plums] = [session async for session in chat.sessions(search="PLUMS")]
    renamed = await chat.rename(plums.session_id, "Stone fruit")
    assert renamed.title == "Stone fruit"
    assert [session.title async for session in chat.sessions(page=1, search="fruit")] == ["Stone fruit"]
    assert len([session async for session in chat.sessions(page=1, search="short")]) == 3
    with pytest.raises(StreamRefused) as refused:
        await chat.rename(plums.session_id, " ")
    assert refused.value.status == 422


async def test_changes_go_on_after_a_cut(relay: Relay, chat: AsyncChat) -> None:
    relay.next(Fault(after=900))
    async with chat.changes() as changes:
        made = []
        for _ in range(5):
            made.append((await chat.new_session()).session_id)
            change = await anext(changes)
            assert isinstance(change, SessionChange)
            assert (change.change, change.session_id) == ("created", made[-1])
    await chat.delete(made[0])
    async with chat.changes(after=change.id) as changes:
        change = await anext(changes)
        assert isinstance(change, SessionChange)
        assert (change.change, change.session_id, change.title) == ("deleted", made[0], None)


async def test_sessions(chat: AsyncChat) -> None:
    made = [(await chat.new_session()).session_id for _ in range(5)]
    assert {session.session_id async for session in chat.sessions(page=2)} == set(made)
    reply = await chat.ask("hello", made[0])
    assert reply.session_id == made[0]
    assert (await chat.session(made[0])).message_count == 2
    assert (await chat.clear(made[0])).message_count == 0
    await chat.delete(made[0])
    with pytest.raises(StreamRefused) as refused:
        await chat.session(made[0])
    assert (refused.value.status, refused.value.code) == (404, "session_not_found")


async def test_a_session_begins_by_the_name_that_the_client_gives_unless_that_is_not_wanted(chat: AsyncChat) -> None:
    with pytest.raises(StreamRefused, match="session_not_found"):
        async with chat.stream("hello", "abc123", create=False) as reply:
            await anext(reply)
    assert (await chat.ask("hello", "abc123")).session_id == "abc123"
    async with chat.stream("hello", "abc123", create=False) as reply:
        *_, last = [each async for each in reply]
    assert isinstance(last, Complete)
    assert last.message_count == 4


async def test_what_the_server_says_of_itself(chat: AsyncChat) -> None:
    assert (await chat.health()).status == "healthy"
    assert (await chat.stats()).requests.failed == 0
    info = await chat.info()
    assert info.name == "tailrace"
    assert "POST /chat/stream" in info.endpoints


async def test_a_wrong_key_is_refused(relay: Relay) -> None:
    async with ChatClient(relay.url, api_key="wrong") as chat:
        with pytest.raises(StreamRefused, match=r"401 \(unauthorized\)") as refused:
            await chat.ask("hello")
        assert refused.value.status == 401


async def test_the_same_without_asyncio(relay: Relay) -> None:
    def talk() -> None:
        with ChatClient(relay.url, api_key="key", retry=AT_ONCE) as chat:
            everything(chat)

    def everything(chat: Chat) -> None:
        session = chat.new_session()
        reply = chat.ask("hello", session.session_id)
        assert chat.session(session.session_id).messages[-1].text == reply.text
        with chat.stream("more", session.session_id) as objects:
            info = next(objects)
            assert isinstance(info, SessionInfo)
            assert chat.stop(info.stream_id).state == "stopped"
        assert [each.session_id for each in chat.sessions(page=1)] == [session.session_id]
        assert chat.ask("short pears", session.session_id, replace=info.stream_id).message_count == 4
        assert chat.rename(session.session_id, "Fruit").title == "Fruit"
        assert [each.title for each in chat.sessions(search="PEARS")] == ["Fruit"]
        chat.clear(session.session_id)
        with chat.changes() as changes:
            made = chat.new_session()
            change = next(changes)
            assert isinstance(change, SessionChange)
            assert (change.change, change.session_id) == ("created", made.session_id)
        assert len(list(chat.sessions(page=1))) == 2
        chat.delete(session.session_id)
        assert chat.health().status == "healthy"
        assert chat.stats().active_sessions == 1
        assert chat.info().model == "demo"

    relay.next(Fault(after=1_700))
    await asyncio.to_thread(talk)


def test_both_chats_have_the_same_methods() -> None:
    assert AsyncChat.session is Chat.session
    assert AsyncChat.session.__doc__ == Chat("", None).session.__doc__  # type: ignore[arg-type]
    assert inspect.signature(AsyncChat(None, None).delete).parameters.keys() == {"session_id"}  # type: ignore[arg-type]


async def test_a_server_is_entered_once_at_a_time() -> None:
    client = ChatClient("http://127.0.0.1:1")
    for _ in range(2):
        async with client:
            with pytest.raises(RuntimeError, match="expected one `with` at a time, but this ChatClient is in use"):
                await client.__aenter__()
        with client, pytest.raises(RuntimeError, match="expected one `with` at a time, but this ChatClient is in use"):
            client.__enter__()


async def test_a_message_that_cannot_be_sent_is_told() -> None:
    async with ChatClient("http://127.0.0.1:1") as chat:
        with pytest.raises(ValueError, match=r"expected JSON-able data, but got {'message'"):
            await chat.ask("\ud800")
    with ChatClient("http://127.0.0.1:1") as other, pytest.raises(ValueError, match="expected JSON-able data"):
        other.ask("\ud800")


class Strange:
    """A server that answers each request with the next of these."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.answers.pop(0)(scope, receive, send)


def lines(*objects: bytes) -> Response:
    body, headers = b"\n".join(objects) + b"\n", {"Tailrace-Cursor": "S.e.0"}
    return Response(body, media_type="application/x-ndjson", headers=headers)


INFO = b'{"type":"session_info","id":"S.e.1","session_id":"s","stream_id":"S","model":"m","new":1}'
COMPLETE = (
    b'{"type":"complete","id":"S.e.9.end","session_id":"s","total_chunks":1,"processing_time":1,"message_count":2}'
)


async def test_newer_servers_are_understood() -> None:
    odd = b'{"type":"thought","id":"S.e.2","text":"hm"}'
    app = Strange(*[lines(INFO, odd, COMPLETE)] * 2)
    async with serving(app, lifespan="off") as url, ChatClient(url) as chat:
        async with chat.stream("x") as reply:
            info, thought, _ = [each async for each in reply]
        assert (await chat.ask("x")).text == ""
    assert (info.model_extra or {})["new"] == 1
    assert type(thought) is ChatObject
    assert (thought.model_extra or {})["text"] == "hm"


@pytest.mark.parametrize("reasoning", [False, True])
async def test_what_the_model_thinks_is_there_for_those_who_ask(reasoning: bool) -> None:
    queries: list[bytes] = []
    thought = b'{"type":"reasoning","id":"S.e.2","text":"hm"}'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        queries.append(scope["query_string"])
        await lines(INFO, thought, COMPLETE)(scope, receive, send)

    async with serving(app, lifespan="off") as url, ChatClient(url) as chat:
        for following in (chat.stream("x", reasoning=reasoning), chat.resume("S", reasoning=reasoning)):
            async with following as reply:
                assert isinstance([each async for each in reply][1], Reasoning)
    assert queries == [b"reasoning=true" if reasoning else b""] * 2


async def test_after_a_reset_the_text_is_gathered_anew() -> None:
    def chunk(text: bytes) -> bytes:
        return b'{"type":"chunk","id":"S.e.%d","text":"%b","chunk_number":1}' % (2 + len(text), text)

    reset = b'{"type":"reset","id":"S.f.0","reason":"epoch_changed"}'
    renewed = [line.replace(b"S.e", b"S.f") for line in (INFO, chunk(b"whole"), COMPLETE)]
    answers = [lines(INFO, chunk(b"ha"), reset), lines(*renewed)]
    async with serving(Strange(*answers), lifespan="off") as url, ChatClient(url, retry=AT_ONCE) as chat:
        assert (await chat.ask("x")).text == "whole"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([b"[1]"], "an object of a reply"),
        ([b'{"type":"chunk","id":"S.e.1"}'], "expected Chunk from the server, but in text"),
        ([COMPLETE], "only a part"),
    ],
)
async def test_what_is_no_reply(body: list[bytes], said: str) -> None:
    async with serving(Strange(lines(*body)), lifespan="off") as url, ChatClient(url) as chat:
        with pytest.raises(DecodeError, match=said):
            await chat.ask("x")


async def test_requests_are_repeated_where_that_does_no_harm() -> None:
    busy = JSONResponse({"detail": "later", "code": "x"}, 503)
    told = JSONResponse({"detail": "later"}, 503, {"Retry-After": "0"})
    health = JSONResponse({"status": "unhealthy", "active_streams": 0, "active_connections": 0, "uptime": 1}, 503)
    app = Strange(
        busy, busy, JSONResponse({"sessions": [], "total": 0}), told, JSONResponse({}), busy, health, JSONResponse([])
    )
    retry = Retry(base=0, limit=2)
    async with serving(app, lifespan="off") as url, ChatClient(url, retry=retry) as chat:
        assert [session async for session in chat.sessions()] == []
        with pytest.raises(DecodeError, match="expected Session from the server"):
            await chat.new_session()
        with pytest.raises(StreamRefused, match=r"503 \(x\): later"):
            await chat.new_session()
        assert (await chat.health()).status == "unhealthy"
        with pytest.raises(DecodeError, match="expected Stats from the server, but in the whole"):
            await chat.stats()


async def test_a_server_that_never_answers() -> None:
    app = Strange(*[JSONResponse({})] * 6)
    async with serving(app, lifespan="off") as url, relayed(url) as relay:
        relay.always(Fault(after=20))
        async with ChatClient(relay.url, retry=Retry(base=0, limit=2)) as chat:
            with pytest.raises(Unreachable, match="no answer from the server to 3 requests"):
                await chat.stats()
            with pytest.raises(Unreachable, match=r"no answer from the server: .* unknown whether"):
                await chat.new_session()


@pytest.mark.parametrize("repeatable", [True, False])
async def test_an_answer_that_breaks_off(repeatable: bool) -> None:
    body = {"detail": "x" * 500}
    app = Strange(*[JSONResponse(body)] * 3)
    async with serving(app, lifespan="off") as url, relayed(url) as relay:
        relay.always(Fault(after=400))
        async with ChatClient(relay.url, retry=Retry(base=0, limit=1)) as chat:
            with pytest.raises(Unreachable):
                await (chat.stats() if repeatable else chat.new_session())
    assert len(app.answers) == (1 if repeatable else 2)

"""Replies and messages as HTML: `?html=true`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tailrace.chat.models.base import ModelError, Reasoning
from tests.chat.api.talking import JSON, SSE, Chat, Hold, Scripted, begun, body, chatting, lines
from tests.raw import exchange, frames

TEXT = "# Title\n\nSome *text*\n\n- one\n\n- two\n\n```python\nx = 1\n```\n"
HTML = (
    '<h1 dir="auto">Title</h1>\n'
    '<p dir="auto">Some <em>text</em></p>\n'
    '<ul dir="auto">\n<li>\n<p dir="auto">one</p>\n</li>\n\n<li>\n<p dir="auto">two</p>\n</li>\n</ul>\n'
    '<div class="code"><div class="bar"><span class="lang">python</span></div>'
    '<pre><code><span class="n">x</span> <span class="o">=</span> <span class="mi">1</span>\n</code></pre></div>\n'
)


def html(objects: Iterable[Mapping[str, Any]]) -> str:
    """The HTML that a page shows after these objects."""
    shown = {block["number"]: block["html"] for each in objects for block in each.get("blocks") or ()}
    assert sorted(shown) == list(range(1, len(shown) + 1))
    return "".join(shown[number] for number in sorted(shown))


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_a_reply_has_html_beside_its_text(tmp_path: Path, size: int) -> None:
    pieces = [TEXT[begin : begin + size] for begin in range(0, len(TEXT), size)]
    async with chatting(tmp_path, Scripted(*pieces)) as chat:
        answer = await chat.http.post("/chat/stream?html=true", json=body("Hello", None))
        objects = lines(answer.content)
        stream_id = objects[0]["stream_id"]
        plain = await chat.read(stream_id)
        details = await chat.get(f"/sessions/{objects[0]['session_id']}?html=true")
    assert html(objects) == HTML
    path = f"/chat/stream/{stream_id}"
    assert answer.headers["content-location"] == f"{path}?html=true"
    assert answer.headers["link"] == f'<{path}/stop?html=true>; rel="stop"'
    without = [{name: value for name, value in each.items() if name not in ("id", "blocks")} for each in objects]
    assert without == [{name: value for name, value in each.items() if name != "id"} for each in plain]
    assert all(("blocks" in each) == (each["type"] == "chunk") for each in objects)
    assert [message["html"] for message in details["messages"]] == [None, HTML]


async def test_html_is_on_every_wire(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(TEXT)) as chat:
        answer = await chat.http.post("/chat/stream?html=true", json=body("Hello", None), headers=SSE)
        *events, _ = frames(answer.content)
        document = await chat.post("/chat/stream?html=true", json=body("Hello", None), headers=JSON)
    assert html(event.data for event in events) == HTML == html(document["data"])
    assert document["text"] == TEXT


async def test_every_cursor_leads_to_the_rest(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(*TEXT)) as chat:
        objects = lines((await chat.http.post("/chat/stream?html=true", json=body("Hello", None))).content)
        stream_id, end = objects[0]["stream_id"], objects[-1]["id"]
        for number in range(0, len(objects) - 1, 9):
            rest = await chat.read(stream_id, objects[number]["id"], query="html=true")
            assert rest == objects[number + 1 :]
        assert (await chat.http.get(f"/chat/stream/{stream_id}?html=true&after={end}")).status_code == 204
        # A cursor of one stream is none of the other.
        (reset, *_) = await chat.read(stream_id, objects[5]["id"])
        assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")


async def test_readers_share_one_log_and_the_reply_needs_none_of_them(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one *tw", held, "o*")) as chat:
        async with saying(chat) as first:
            objects = await begun(first, "one")
            info = objects[0]
            async with exchange(chat.url, f"/chat/stream/{info['stream_id']}?html=true") as second:
                assert await begun(second, "one") == objects
                assert len(rendered(chat)) == 1
        await chat.health(active_connections=0)
        held.release.set()
        assert html(await chat.read(info["stream_id"], query="html=true")) == '<p dir="auto">one <em>two</em></p>\n'
        assert await chat.replies(info["session_id"]) == [("one *two*", "complete")]


async def test_nobody_who_asks_for_text_makes_html(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        objects = await chat.say("Hello")
        assert rendered(chat) == []
        assert not any("blocks" in each for each in objects)


async def test_a_reply_is_stopped_where_its_html_says(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one *two*\n\nthr", held, "ee")
    async with chatting(tmp_path, model) as chat, saying(chat) as reply:
        (info, *_) = await begun(reply, "thr")
        address = reply.headers["link"].partition("<")[2].partition(">")[0]
        assert (await chat.post(address))["state"] == "stopped"
        assert model.closed == 1
        *_, end = lines(await reply.rest())
        assert (end["type"], end["state"]) == ("complete", "stopped")
        whole = await chat.read(info["stream_id"], query="html=true")
    assert html(whole) == '<p dir="auto">one <em>two</em></p>\n<p dir="auto">thr</p>\n'


async def test_a_reply_that_fails_has_its_last_blocks_in_the_error(tmp_path: Path) -> None:
    model = Scripted("1. one\n\n2. two", ModelError("no more", code="model_unavailable"))
    async with chatting(tmp_path, model) as chat, saying(chat) as reply:
        objects = lines(await reply.rest())
        assert not reply.whole
        details = await chat.get(f"/sessions/{objects[0]['session_id']}?html=true")
    assert (objects[-1]["type"], objects[-1]["code"]) == ("error", "model_unavailable")
    assert html(objects).count("<ol") == 1
    assert html(objects) == details["messages"][1]["html"]


async def test_reasoning_is_beside_the_html_for_who_wants_it(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(Reasoning("*hm*"), "*so*")) as chat:
        objects = lines((await chat.http.post("/chat/stream?html=true&reasoning=true", json=body("a", None))).content)
        without = await chat.read(objects[0]["stream_id"], query="html=true")
    assert [each["text"] for each in objects if each["type"] == "reasoning"] == ["*hm*"]
    assert without == [each for each in objects if each["type"] != "reasoning"]
    assert html(objects) == '<p dir="auto"><em>so</em></p>\n'


async def test_a_repeated_key_gets_the_same_html(tmp_path: Path) -> None:
    model = Scripted("*one*")
    async with chatting(tmp_path, model) as chat:
        asked: dict[str, Any] = {"json": body("Hello", "s"), "headers": {"Idempotency-Key": "k"}}
        first = lines((await chat.http.post("/chat/stream?html=true", **asked)).content)
        assert lines((await chat.http.post("/chat/stream?html=true", **asked)).content) == first
        after = f"/chat/stream?html=true&after={first[2]['id']}"
        assert lines((await chat.http.post(after, **asked)).content) == first[3:]
    assert len(model.asked) == 1


async def test_after_a_restart_the_html_is_made_again(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(*TEXT)) as chat:
        before = lines((await chat.http.post("/chat/stream?html=true", json=body("Hello", None))).content)
    stream_id = before[0]["stream_id"]
    async with chatting(tmp_path, Scripted()) as chat:
        (reset, *_) = await chat.read(stream_id, before[9]["id"], query="html=true")
        assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")
        again = await chat.read(stream_id, reset["id"], query="html=true")
        assert again == await chat.read(stream_id, query="html=true")
    assert html(again) == html(before) == HTML


async def test_the_end_of_the_server_completes_the_html(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one\n\n*two*", held)) as chat:
        async with saying(chat) as reply:
            (info, *_) = await begun(reply, "two")
            chat.app.state.tailrace_engine.drain(grace=0)
            *_, end = lines(await reply.rest())
        assert (end["type"], end["code"]) == ("error", "interrupted")
    async with chatting(tmp_path, Scripted()) as chat:
        details = await chat.get(f"/sessions/{info['session_id']}?html=true")
    assert details["messages"][1]["html"] == '<p dir="auto">one</p>\n<p dir="auto"><em>two</em></p>\n'


async def test_a_session_may_be_deleted_while_its_reply_is_rendered(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("*one*", held)) as chat, saying(chat) as reply:
        (info, *_) = await begun(reply, "one")
        await chat.delete(f"/sessions/{info['session_id']}")
        *_, end = lines(await reply.rest())
        assert (end["type"], end["state"]) == ("complete", "stopped")
        await chat.get(f"/chat/stream/{info['stream_id']}?html=true", 404)


async def test_without_the_extra_a_reply_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("tailrace.chat.markdown", raising=False)
    monkeypatch.setitem(sys.modules, "tailrace.chat.markdown", None)
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.post("/chat/stream?html=true", json=body("Hello", None))
        objects = lines(answer.content)
        assert "html=true" in answer.headers["content-location"]
        assert objects == await chat.read(objects[0]["stream_id"])
        details = await chat.get(f"/sessions/{objects[0]['session_id']}?html=true")
        assert details["messages"][1]["html"] is None
        assert not (await chat.get("/health"))["html"]


async def test_a_failure_of_the_renderer_leaves_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, text: str) -> dict[int, str]:
        raise RecursionError

    monkeypatch.setattr("tailrace.chat.markdown.Renderer.feed", fail)
    async with chatting(tmp_path, Scripted()) as chat:
        objects = lines((await chat.http.post("/chat/stream?html=true", json=body("Hello", None))).content)
        details = await chat.get(f"/sessions/{objects[0]['session_id']}?html=true")
    assert objects[-1]["type"] == "complete"
    assert not any("blocks" in each for each in objects)
    assert details["messages"][1]["html"] is None


async def test_many_who_ask_at_once_get_one_log(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(*TEXT)) as chat:
        (info, *_) = await chat.say("Hello")
        reads = [chat.read(info["stream_id"], query="html=true") for _ in range(8)]
        first, *others = await asyncio.gather(*reads)
        assert all(other == first for other in others)
        assert html(first) == HTML


def rendered(chat: Chat) -> list[str]:
    """The names of the logs with HTML."""
    store = chat.app.state.tailrace_engine.store
    return [name for name in store._logs if name.startswith("/chat/stream/html/")]


def saying(chat: Chat) -> Any:
    """A reply with HTML that is read as it comes."""
    return exchange(
        chat.url,
        "/chat/stream?html=true",
        {"Content-Type": "application/json"},
        method="POST",
        body=b'{"message": "Hello"}',
    )

"""Replies and messages as HTML: `?html=true`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chat.api.talking import JSON, SSE, Scripted, body, chatting, lines
from tests.raw import frames

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

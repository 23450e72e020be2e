"""The scripts of the pages in headless Chromium: Markdown, the reader of a reply, and the page of the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tailrace.chat.models.demo_parts import PARTS
from tests.chat.api.talking import lines, text
from tests.chat.browsing import PATIENCE, chromium, visiting

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


GROW = """
async ([text, cuts]) => {
    const {Growing} = await import('/assets/render.js');
    const grow = (pieces) => {
        const element = document.createElement('div');
        const growing = new Growing(element);
        for (const piece of pieces) {
            growing.append(piece);
            growing.render();
        }
        return element.innerHTML;
    };
    const whole = grow([text]);
    const differing = cuts.filter((size) => {
        const count = Math.ceil(text.length / size);
        const pieces = Array.from({length: count}, (_, n) => text.slice(n * size, (n + 1) * size));
        return grow(pieces) !== whole;
    });
    return [whole, differing];
}
"""


async def test_markdown_is_the_same_however_it_arrives(browser: Browser, tmp_path: Path) -> None:
    # Lines that turn out to be something else when they go on.
    traps = "para\n#no heading\n- list\n\n  more\n\nend\n1. one\n2) two\n"
    traps += "a | b\n--|--x\na | b\n--|--\n1 | 2\n> q\n---\n**a*b** `x\n"
    written = "\n\n".join([part.text for part in PARTS] + [traps, "```py\nopen\n\n# not a heading"])
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        whole, differing = await demo.page.evaluate(GROW, [written, [5, 23]])
        assert differing == []
        _, differing = await demo.page.evaluate(GROW, [traps, list(range(1, 12))])
        assert differing == []
        for piece in (
            "<h4>A stream is a log that",
            "<em>stream</em>",
            '<li class="task">☑ Append only',
            "<blockquote>",
        ):
            assert piece in whole
        assert '<th class="end">about</th>' in whole
        assert "<table>" in whole
        assert "<strong>a*b</strong> `x" in whole


READ = """
async (what) => {
    const {readReply} = await import('/assets/reply.js');
    const objects = [];
    for await (const object of readReply(what, {url: new URL('/', location.href)})) objects.push(object);
    return objects;
}
"""


async def test_a_reply_of_an_earlier_server_is_read_from_its_beginning(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        info, *_ = await demo.chat.say("Go")
        stream_id = info["stream_id"]
        what = {"streamId": stream_id, "after": f"{stream_id}.AAAAAAAA.3"}
        objects = await demo.page.evaluate(READ, what)
        assert objects[0]["type"] == "reset"
        assert text(objects) == "one two three"
        assert objects[-1]["type"] == "complete"
        assert json.dumps(objects).count("reset") == 1


async def test_the_api_is_documented_without_a_script_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, options={"viewport": {"width": 360, "height": 640}}) as demo:
        await demo.page.goto(f"{demo.relay.url}/docs")
        await expect(demo.page.get_by_text("Reading openapi.json")).to_have_count(0)
        api = await demo.chat.get("/openapi.json")
        endpoints = [f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods]
        assert await demo.page.locator("#operations h3").all_inner_texts() == endpoints
        assert await demo.page.locator("#schemas h3").all_text_contents() == list(api["components"]["schemas"])
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        post = demo.page.locator("#operations section").first
        await expect(post.get_by_role("row", name="Idempotency-Key header")).to_be_visible()
        await expect(post.get_by_role("row", name="200 application/x-ndjson")).to_contain_text("SessionInfo or Status")
        await post.get_by_role("link", name="ChatRequest").click()
        await expect(demo.page.locator("#object-ChatRequest h3")).to_be_in_viewport()

        pasted = [await paste(line) for line in await post.locator("pre").all_text_contents()]
        lined, events, document = pasted
        assert text(lines(lined)) == "one two three"
        assert b"event: done" in events
        assert json.loads(document)["text"] == "one two three"


async def paste(line: str) -> bytes:
    """What a shell prints."""
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE / 1000):
        printed, _ = await shell.communicate()
    return printed

"""`tailrace.js` in Chromium: what a browser does otherwise than Node."""

from __future__ import annotations

import re
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from playwright.async_api import Browser, Error, Page, expect

from tailrace import javascript_client
from tailrace.client import StreamFailed, StreamLost, StreamRefused
from tailrace.rooms import rooms_router
from tailrace.testing import Fault, Relay, relayed
from tests.chat.browsing import chromium
from tests.client.apps import LETTERS, tailrace_app
from tests.client.drivers import Got
from tests.js.driving import got_from, options_of
from tests.serving import serving

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTATION = Path(__file__).parent.parent.parent / "docs" / "javascript.md"

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


def application() -> FastAPI:
    app = tailrace_app()
    app.mount("/js", javascript_client())
    app.include_router(rooms_router("/rooms/{room}"))

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Page</title><link rel=icon href=data:>")

    @app.get("/reading.js")
    async def reading() -> FileResponse:
        return FileResponse(Path(__file__).parent / "reading.js", media_type="text/javascript")

    return app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def relay() -> AsyncIterator[Relay]:
    async with serving(application()) as url, relayed(url) as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, relay: Relay) -> AsyncIterator[Page]:
    page = await browser.new_page()
    await page.goto(f"{relay.url}/page")
    await page.evaluate(
        """async () => {
            window.tailrace = await import('/js/tailrace.js');
            window.read = (await import('/reading.js')).reader(tailrace);
        }"""
    )
    yield page
    await page.close()


async def read(page: Page, path: str, **options: Any) -> Got:
    request = options_of(options)
    del request["headers"]["connection"]  # browsers do not allow it
    return got_from(await page.evaluate("(request) => read(request)", {"url": path, **request}))


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_stream_that_is_cut_goes_on(page: Page, relay: Relay, accept: str) -> None:
    headers = {"accept": accept}
    await read(page, "/letters", headers=headers)
    total = relay.passed
    for back in range(0, 200, 23):
        relay.cut()  # so that the next request does not use the connection of the last one
        relay.next(Fault(after=total - back))
        got = await read(page, "/letters", headers=headers)
        assert (got.data, got.error) == (LETTERS, None), back
        assert got.outcome is not None


async def test_a_failed_stream_tells_its_error_although_its_body_breaks_off(page: Page) -> None:
    got = await read(page, "/late")
    assert isinstance(got.error, StreamFailed)
    assert (got.error.code, got.error.message) == ("model_down", "the model is down")
    assert got.data == ["a"]


async def test_a_failed_stream_is_read_again_with_its_error(page: Page) -> None:
    """All of its body comes at once, and Chromium discards what came before the break."""
    first = await read(page, "/late")
    assert first.address is not None
    again = await read(page, first.address)
    assert isinstance(again.error, StreamFailed)
    assert again.data == ["a"]


async def test_refusals_and_a_server_that_is_gone(page: Page, relay: Relay) -> None:
    refused = await read(page, "/early")
    assert isinstance(refused.error, StreamRefused)
    assert refused.error.status == 401
    relay.refuse()
    relay.cut()
    gone = await read(page, "/letters")
    assert isinstance(gone.error, StreamLost)
    unknown = await read(page, "/words", json=["x"])
    assert "unknown whether" in str(unknown.error)


async def test_a_stop_gets_its_answer(page: Page) -> None:
    got = await read(page, "/long", stop_after=3)
    assert got.outcome is not None
    assert (got.outcome.state, got.outcome.code) == ("cancelled", "stopped")


async def test_a_reload_goes_on(page: Page) -> None:
    take = """async (count) => {
        const data = [];
        for await (const event of tailrace.tail('/long', { saveAs: 'numbers' })) {
            data.push(event.data);
            if (data.length === count) break;
        }
        return data;
    }"""
    assert await page.evaluate(take, 3) == [0, 1, 2]
    await page.reload()
    await page.evaluate("async () => { window.tailrace = await import('/js/tailrace.js'); }")
    assert await page.evaluate("tailrace.saved('numbers').cursor")
    assert await page.evaluate(take, 2) == [2, 3]


async def test_a_wait_ends_when_the_device_is_online_again(page: Page, relay: Relay) -> None:
    relay.next(Fault(after=480))
    relay.cut()
    waiting = """async () => {
        const back = () => dispatchEvent(new Event('online'));
        const onState = ({ state }) => state === 'waiting' && queueMicrotask(back); // once the wait has begun
        return (await tailrace.tail('/letters', { retry: { base: 1000, cap: 1000 }, onState }).collect()).length;
    }"""
    assert await page.evaluate(waiting) == 3


async def test_a_stream_notices_that_the_device_is_offline(page: Page) -> None:
    """A log has no grace: it is still there however long this is offline."""
    await page.evaluate(
        """() => {
            const onState = ({ state }) => (window.state = state);
            window.stream = tailrace.tail('/feed', { onState, retry: { base: 1000, cap: 1000 } });
            void stream.collect();
        }"""
    )
    await page.wait_for_function("window.state === 'open'")
    await page.context.set_offline(True)
    await page.wait_for_function("window.state === 'waiting'")
    await page.context.set_offline(False)
    await page.wait_for_function("window.state === 'open'")
    await page.evaluate("stream.close()")


async def test_headers_for_a_room_are_refused_because_a_browser_cannot_send_them(page: Page) -> None:
    with pytest.raises(Error, match="expected no headers, because a browser sends none"):
        await page.evaluate("tailrace.join('/rooms/a', { headers: { authorization: 'a' } })")


async def test_a_room_goes_on_after_a_cut(page: Page, relay: Relay) -> None:
    await page.evaluate(
        """() => {
            window.room = tailrace.join('/rooms/one', { retry: { base: 0.01, cap: 0.02 } });
            window.next = async () => (await room.next()).value.data.message;
            room.send('before');
        }"""
    )
    assert await page.evaluate("next()") == "before"
    relay.cut()
    await page.evaluate("void (window.after = next())")
    await page.evaluate("room.send('after')")
    assert await page.evaluate("after") == "after"
    await page.evaluate("room.close()")


async def test_a_room_that_refuses_says_why(page: Page) -> None:
    refused = "tailrace.join('/rooms/..bad%20name').next().catch(({ name, status }) => [name, status])"
    assert await page.evaluate(refused) == ["StreamRefused", 422]


async def test_the_application_of_the_documentation(browser: Browser, tmp_path: Path) -> None:
    """It tells a story that survives a cut and a reload."""
    files = dict(
        re.findall(r"^```\w+\n(?:#|//|<!--) (\w+\.\w+)(?: -->)?\n(.*?)^```$", DOCUMENTATION.read_text(), re.M | re.S)
    )
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    module = runpy.run_path(str(tmp_path / "story.py"))
    async with serving(module["app"]) as url, relayed(url) as relay:
        page = await browser.new_page()
        await page.goto(relay.url)
        await page.click("#tell")
        told = page.locator("#text")
        await expect(told).to_contain_text("word 9 ")
        relay.cut()
        await expect(told).to_contain_text("word 20 ")
        await page.reload()
        await expect(told).to_contain_text("word 30 ")
        assert (await told.inner_text()).startswith("word 0 word 1 ")
        await page.click("#stop")
        await expect(page.locator("#state")).to_have_text("cancelled")
        await expect(page.locator("#tell")).to_be_enabled()
        await page.close()

"""A browser's own means: EventSource, fetch and WebSocket in headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tailrace.testing import Relay, relayed
from tests.system.lives import life, release
from tests.system.servers import PATIENCE, Running

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest_asyncio.fixture(loop_scope="module")
async def control(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def relay(server: Running) -> AsyncIterator[Relay]:
    async with relayed(f"http://127.0.0.1:{server.port}") as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, relay: Relay) -> AsyncIterator[Page]:
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    await page.goto(f"{relay.url}/page")
    yield page
    await page.close()


LISTEN = """
(url) => {
    window.events = [];
    window.source = new EventSource(url);
    const keep = (event) => events.push({
        type: event.type, data: event.data && JSON.parse(event.data), id: event.lastEventId, state: source.readyState,
    });
    for (const type of ['message', 'reading', 'done', 'error']) source.addEventListener(type, keep);
}
"""


async def events(page: Page, condition: str) -> list[dict[str, Any]]:
    """What an EventSource has dispatched, once a condition on them is met."""
    await page.wait_for_function(condition)
    found: list[dict[str, Any]] = await page.evaluate("events")
    return found


async def test_an_event_source_sees_every_event_once_although_its_connection_is_cut(
    page: Page, relay: Relay, control: httpx.AsyncClient, name: str
) -> None:
    await release(control, name, 2)
    await page.evaluate(LISTEN, f"/detached?name={name}&count=6")
    await events(page, "events.length == 2")

    # Event 3 arrives in part: the browser has to ask for it again.
    relay.cut_after(40)
    await release(control, name, 2)
    *_, error, third, fourth = await events(page, "events.filter((event) => event.type == 'message').length == 4")
    assert (error["type"], error["state"]) == ("error", 0)  # 0: it reconnects
    assert (third["data"], fourth["data"]) == ({"n": 3}, {"n": 4})
    assert (await life(control, name))["requests"] == 2

    # After the end it comes back once more, and is told to stay away.
    await release(control, name, 2)
    found = await events(page, "source.readyState == EventSource.CLOSED")
    messages = [event for event in found if event["type"] == "message"]
    assert [event["data"] for event in messages] == [{"n": n} for n in range(1, 7)]
    stream = messages[0]["id"].removesuffix(".1")
    assert [event["id"] for event in messages] == [f"{stream}.{n}" for n in range(1, 7)]
    assert [(event["type"], event.get("state")) for event in found[-3:]] == [("done", 1), ("error", 0), ("error", 2)]
    assert found[-3]["id"] == f"{stream}.6.end"
    told = await life(control, name)
    assert (told["requests"], told["started"], told["finished"]) == (3, 1, 1)


async def test_an_event_source_is_told_of_an_error_by_name_and_stays_away(page: Page) -> None:
    await page.evaluate(LISTEN, "/mishap")
    found = await events(page, "source.readyState == EventSource.CLOSED")
    # Chromium may throw away what came right before a broken end. Then it comes back, and gets it again.
    assert [(event["type"], event["data"]) for event in found if event.get("data")] == [
        ("reading", {"n": 1}),
        ("error", {"code": "pump", "message": "the pump broke"}),
    ]
    # The others are the browser's own: connections ended, and the answer to coming back was 204.
    *ended, refused = [(event["type"], event["state"]) for event in found if not event.get("data")]
    assert set(ended) == {("error", 0)}
    assert refused == ("error", 2)


async def test_fetch_reads_lines_as_they_come(page: Page, control: httpx.AsyncClient, name: str) -> None:
    await page.evaluate(
        """
        async (url) => {
            window.lines = [];
            const response = await fetch(url, {headers: {accept: 'application/x-ndjson'}});
            const decoder = new TextDecoder();
            let rest = '';
            (async () => {
                for await (const chunk of response.body) {
                    const parts = (rest + decoder.decode(chunk, {stream: true})).split('\\n');
                    rest = parts.pop();
                    lines.push(...parts.filter((part) => part).map(JSON.parse));
                }
                window.ended = true;
            })();
        }
        """,
        f"/numbers?name={name}&held=true&count=2",
    )
    for n in (1, 2):
        await release(control, name)
        await page.wait_for_function(f"lines.some((line) => line.data.n == {n})")
    await page.wait_for_function("window.ended")
    lines = await page.evaluate("lines")
    assert [(line.get("event"), line["data"]) for line in lines] == [(None, {"n": 1}), (None, {"n": 2}), ("done", {})]


async def test_fetch_rejects_a_body_that_breaks_off(page: Page) -> None:
    outcome = await page.evaluate(
        """
        async () => {
            const response = await fetch('/numbers?fail_at=3', {headers: {accept: 'text/plain'}});
            return response.text().then(() => 'whole', (error) => error.name);
        }
        """
    )
    assert outcome == "TypeError"


async def test_a_browser_aborts_a_fetch_and_the_generator_ends(
    page: Page, control: httpx.AsyncClient, name: str
) -> None:
    await release(control, name)
    await page.evaluate(
        """
        async (url) => {
            const controller = new AbortController();
            const response = await fetch(url, {headers: {accept: 'text/event-stream'}, signal: controller.signal});
            await response.body.getReader().read();
            controller.abort();
        }
        """,
        f"/numbers?name={name}&held=true",
    )
    assert (await life(control, name, closed=1))["cancelled"] == 1


async def test_a_browser_reads_and_stops_over_a_websocket(page: Page, control: httpx.AsyncClient, name: str) -> None:
    await release(control, name)
    messages, code = await page.evaluate(
        """
        (path) => new Promise((resolve) => {
            const messages = [];
            const socket = new WebSocket(`ws://${location.host}${path}`);
            socket.onmessage = (event) => {
                messages.push(JSON.parse(event.data));
                if (messages.length == 1) socket.send(JSON.stringify({event: 'stop'}));
            };
            socket.onclose = (event) => resolve([messages, event.code]);
        })
        """,
        f"/numbers?name={name}&held=true",
    )
    assert messages[0]["data"] == {"n": 1}
    assert (messages[1]["event"], messages[1]["data"]["code"]) == ("cancelled", "stopped")
    assert code == 1000
    assert (await life(control, name, closed=1))["cancelled"] == 1

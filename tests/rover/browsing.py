"""The dashboard in a browser, and the mission control behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Browser, Locator, Page, expect
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.rover import create_app
from tailrace.rover.app import IMAGE_PATH
from tailrace.rover.telemetry import SPEED, Telemetry, read, resume
from tailrace.testing import Relay, relayed
from tests.chat.browsing import PATIENCE
from tests.rover.watching import NDJSON, strong_tag
from tests.serving import free_port, http_client, serving

NAME = "tailrace-rover-name"
LIMIT = "tailrace-rover-limit"

TICK = 2.0 * SPEED
"""Seconds of the mission from one reading to the next."""

NEVER = 3_600.0


def paint(path: Path, width: int = 3_200, height: int = 800) -> Path:
    """Write an image of some 100 kB."""
    Image.effect_noise((width // 4, height // 4), 60).resize((width, height)).save(path, progressive=True)
    return path


class Gate:
    """Notes who asks for what, and keeps a channel closed, as an application with its own rules would."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.asked: list[tuple[str, Headers]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        self.asked.append((scope["path"], Headers(scope=scope)))
        if scope["path"] != "/ws/comms/closed":
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})  # the handshake gets 403
        closed = {"detail": "the channel is for flight directors", "code": "forbidden"}
        return await JSONResponse(closed, 403)(scope, receive, send)


class Site:
    """A mission control behind a relay that a test can cut. It can be started again at the same address.

    A test decides when there is a reading, but for the first.
    """

    url: str
    relay: Relay
    gate: Gate
    _telemetry: Telemetry

    def __init__(self, image: Path, streams: str = "memory://") -> None:
        self.image = image
        self.streams = streams
        self._port = free_port()
        self._server = AsyncExitStack()
        self._address = AsyncExitStack()

    async def start(self) -> None:
        app = create_app(image=self.image, every=NEVER, streams=self.streams)
        self.gate, self._telemetry = Gate(app), app.state.telemetry
        serving_gate = serving(self.gate, timeout_graceful_shutdown=0)  # it does not wait until members have left
        self.url = await self._server.enter_async_context(serving_gate)
        self._server.callback(app.state.tailrace_engine.drain)  # as a signal does
        log = await self._telemetry.readings()
        with log.tail() as first:
            await asyncio.wait_for(anext(first), PATIENCE / 1_000)
        self.relay = await self._address.enter_async_context(relayed(self.url, port=self._port))

    async def stop(self) -> None:
        await self._address.aclose()
        await self._server.aclose()

    async def read(self, count: int = 1, *, ticks: int = 1, **changes: Any) -> None:
        """Let the rover say its next readings, each some ticks after the one before."""
        log = await self._telemetry.readings()
        for _ in range(count):
            rover, last = self._telemetry.rover, await self._telemetry.newest()
            assert last is not None
            reading = read(rover, rover.advance(resume(rover, last), ticks * TICK))
            await log.append(reading.model_copy(update=changes))

    async def odometer(self) -> str:
        """Return what the page says of the newest reading."""
        last = await self._telemetry.newest()
        assert last is not None
        return f"{last.odometer:.1f} m"

    async def say(self, channel: str, member: str, *messages: object) -> None:
        """Say something, not as a dashboard does it."""
        async with http_client(self.url) as client:
            for message in messages:
                said = await client.post(f"/ws/comms/{channel}", params={"name": member}, json=message)
                assert said.status_code == 202

    @asynccontextmanager
    async def present(self, channel: str, members: Iterable[str]) -> AsyncIterator[None]:
        """Some members who only read."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(http_client(self.url, headers={"Accept": NDJSON}))
            for member in members:
                reading = client.stream("GET", f"/ws/comms/{channel}", params={"name": member})
                await stack.enter_async_context(reading)
            yield

    async def settle(self) -> None:
        """Wait until the image can be resumed."""
        async with http_client(self.url) as client:
            await strong_tag(client)

    def parts(self) -> list[str | None]:
        """Return the Range of each request for the image."""
        return [headers.get("range") for path, headers in self.gate.asked if path == IMAGE_PATH]


@asynccontextmanager
async def serving_site(image: Path, streams: str = "memory://") -> AsyncIterator[Site]:
    site = Site(image, streams)
    try:
        await site.start()
        yield site
    finally:
        await site.stop()


class Pane:
    """A pane with a channel in it."""

    def __init__(self, root: Locator) -> None:
        self.root = root
        self.title = root.locator("h3")
        self.state = root.locator(".state")
        self.here = root.locator(".here > button")
        self.field = root.locator("textarea")
        self.said = root.locator(".message:not(.pending) p")
        self.own = root.locator(".message.own:not(.pending) p")
        self.pending = root.locator(".pending")
        self.unread = root.locator(".badge")
        self.note = root.locator(".refusal .note")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    async def say(self, text: str) -> None:
        await self.field.fill(text)
        await self.field.press("Enter")

    async def join(self, channel: str) -> None:
        await self.button("Change").click()
        await self.root.get_by_label("Channel", exact=True).fill(channel)
        await self.root.get_by_label("Channel", exact=True).press("Enter")


class Board:
    """The dashboard."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.picture = page.locator("#viewer img")
        self.image = page.locator("#image-state")
        self.happened = page.locator("#happened")
        self.telemetry = page.locator("#telemetry-state")
        self.note = page.locator("#telemetry-note")
        self.announced = page.locator("#announcer")
        self.panes = [Pane(page.locator(".pane").nth(index)) for index in (0, 1)]

    async def open(self) -> None:
        await self.page.goto(self.url)
        await expect(self.telemetry).to_have_text("Connected")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def times(self) -> list[str]:
        """Return the times of the last readings, the newest first."""
        return await self.page.locator("#rows th").all_text_contents()

    async def hide(self, hidden: bool = True) -> None:
        """Do as a browser does when its user looks at another tab."""
        value = "hidden" if hidden else "visible"
        await self.page.evaluate(
            """(value) => {
                Object.defineProperty(document, 'visibilityState', {value, configurable: true});
                document.dispatchEvent(new Event('visibilitychange'));
            }""",
            value,
        )


EXPECTED = re.compile("^Failed to load resource|^WebSocket connection to .* failed")
"""What Chromium itself says of each connection that is lost, and of each refusal."""


@asynccontextmanager
async def visit(
    browser: Browser,
    site: Site,
    name: str | None = "ada",
    *,
    url: str | None = None,
    limit: int | None = None,
    options: dict[str, Any] | None = None,
) -> AsyncIterator[Board]:
    """A visit that fails if the page fails, or asks for anything that its policy forbids or another server has.

    It goes through the relay unless it has another `url`.
    """
    context = await browser.new_context(reduced_motion="reduce", **(options or {}))
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        kept = {NAME: name, LIMIT: limit and str(limit)}
        for key, value in kept.items():
            if value:
                await page.add_init_script(f"localStorage.getItem('{key}') || localStorage.setItem('{key}', '{value}')")
        trouble: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        url = url or site.relay.url
        yield Board(page, url)
        assert [line for line in trouble if not EXPECTED.match(line)] == []
        assert [url for url in asked if not url.startswith((url, "blob:"))] == []
    finally:
        await context.close()

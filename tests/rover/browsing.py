"""The dashboard in a browser, and the small mission control behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, expect

from tailrace.testing import Relay, relayed
from tests.chat.browsing import PATIENCE
from tests.rover.pages_app import Mission
from tests.serving import serving

NAME = "tailrace-rover-name"
LIMIT = "tailrace-rover-limit"


class Site:
    """A mission control behind a relay that a test can cut. It can be started again at the same address."""

    mission: Mission
    relay: Relay

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._lives = 0
        self._server = AsyncExitStack()
        self._address = AsyncExitStack()

    async def start(self, origin: datetime | None = None) -> None:
        self._lives += 1
        self.mission = Mission(self._folder, epoch=f"life{self._lives}", origin=origin)
        url = await self._server.enter_async_context(serving(self.mission.app))
        self.relay = await self._address.enter_async_context(relayed(url, port=self._port))
        self._port = urlsplit(self.relay.url).port or 0

    async def stop(self) -> None:
        await self._address.aclose()
        await self._server.aclose()


@asynccontextmanager
async def serving_site(folder: Path) -> AsyncIterator[Site]:
    site = Site(folder)
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

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.picture = page.locator("#viewer img")
        self.image = page.locator("#image-state")
        self.happened = page.locator("#happened")
        self.telemetry = page.locator("#telemetry-state")
        self.note = page.locator("#telemetry-note")
        self.announced = page.locator("#announcer")
        self.panes = [Pane(page.locator(".pane").nth(index)) for index in (0, 1)]

    async def open(self) -> None:
        await self.page.goto(self.site.relay.url)
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
    limit: int | None = None,
    options: dict[str, Any] | None = None,
) -> AsyncIterator[Board]:
    """A visit that fails if the page fails, or asks for anything that its policy forbids or another server has."""
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
        yield Board(page, site)
        assert [line for line in trouble if not EXPECTED.match(line)] == []
        assert [url for url in asked if not url.startswith((site.relay.url, "blob:"))] == []
    finally:
        await context.close()

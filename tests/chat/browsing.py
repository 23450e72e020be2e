"""A browser, and the chat page in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tailrace.testing import relayed
from tests.chat.api.talking import Scripted, chatting
from tests.system.test_browser import ARGUMENTS

PATIENCE = 10_000
"""Milliseconds after which no test waits any more."""

expect.set_options(timeout=PATIENCE)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Site:
    """A chat server behind a relay that a test can cut. It can be started again at the same address."""

    folder: Path
    model: Scripted
    key: str | None = None
    port: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    address: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        changes: dict[str, Any] = {"api_keys": (self.key,)} if self.key else {}
        self.chat = await self.stack.enter_async_context(chatting(self.folder, self.model, key=self.key, **changes))
        self.relay = await self.address.enter_async_context(relayed(self.chat.url, port=self.port))
        self.port = urlsplit(self.relay.url).port or 0

    async def stop(self) -> None:
        await self.address.aclose()
        await self.stack.aclose()

    @asynccontextmanager
    async def restarting(self) -> AsyncIterator[None]:
        """Nobody is at the address within the block; with its end the server ends, and another one begins."""
        await self.address.aclose()
        yield
        await self.stop()
        await self.start()


@asynccontextmanager
async def serving_site(folder: Path, *steps: Any, key: str | None = None) -> AsyncIterator[Site]:
    site = Site(folder, Scripted(*steps), key)
    try:
        await site.start()
        yield site
    finally:
        await site.stop()


class Demo:
    """The page and the server that it talks with, through a relay that a test can cut."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.chat = site.chat
        self.relay = site.relay
        self.model = site.model
        self.field = page.get_by_label("Message", exact=True)
        self.state = page.locator("#state")
        self.notice = page.get_by_role("alert")
        self.announced = page.locator("#announcer")
        self.said = page.locator(".message.user .said")
        self.replies = page.locator(".message.assistant .said")
        self.facts = page.locator(".facts")

    async def open(self, session_id: str | None = None, *, state: str = "Connected") -> None:
        await self.page.goto(f"{self.relay.url}/demo" + (f"?session={session_id}" if session_id else ""))
        await expect(self.state).to_have_text(re.compile(f"^{state}"))

    async def say(self, message: str) -> None:
        await self.field.fill(message)
        await self.field.press("Enter")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def session_id(self) -> str:
        return self.page.url.partition("?session=")[2]

    async def stored(self) -> list[tuple[str, str | None]]:
        return await self.chat.replies(self.session_id)


@asynccontextmanager
async def visiting(
    browser: Browser, folder: Path, *steps: Any, key: str | None = None, options: dict[str, Any] | None = None
) -> AsyncIterator[Demo]:
    """A visit to a server of its own, see `visit`."""
    async with serving_site(folder, *steps, key=key) as site, visit(browser, site, options=options) as demo:
        yield demo


@asynccontextmanager
async def visit(browser: Browser, site: Site, *, options: dict[str, Any] | None = None) -> AsyncIterator[Demo]:
    """A visit that fails if the page fails, or asks for anything that its policy forbids or another server has."""
    page = await browser.new_page(reduced_motion="reduce", **(options or {}))
    try:
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: trouble.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield Demo(page, site)
        # Chromium itself tells of each connection that is lost and each refusal.
        assert [line for line in trouble if not line.startswith("Failed to load resource")] == []
        assert [url for url in asked if not url.startswith(site.relay.url)] == []
    finally:
        await page.close()

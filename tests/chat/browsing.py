"""A browser, and the chat page in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, async_playwright, expect

from tailrace.testing import Relay, relayed
from tests.chat.api.talking import Chat, Scripted, chatting
from tests.serving import free_port
from tests.system.test_browser import ARGUMENTS

PATIENCE = 30_000
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
    streams: str | None = None
    port: int = field(default_factory=free_port)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    address: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        changes: dict[str, Any] = {"api_keys": (self.key,)} if self.key else {}
        changes |= {"streams": self.streams} if self.streams else {}
        self.chat = await self.stack.enter_async_context(chatting(self.folder, self.model, key=self.key, **changes))
        self.relay = await self.address.enter_async_context(relayed(self.chat.url, port=self.port))

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
async def serving_site(
    folder: Path, *steps: Any, key: str | None = None, streams: str | None = None
) -> AsyncIterator[Site]:
    site = Site(folder, Scripted(*steps), key, streams)
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
        self.field = page.get_by_label("Message", exact=True)
        self.connection = page.locator("#state")
        self.hint = page.locator("#hint")
        self.notice = page.get_by_role("alert")
        self.announced = page.locator("#announcer")
        self.said = page.locator(".message.user .said")
        self.replies = page.locator(".message.assistant .said")
        self.outcomes = page.locator(".outcome")
        self.problem = page.locator(".problem")
        self.sessions = page.locator("#list li")

    @property
    def chat(self) -> Chat:
        return self.site.chat

    @property
    def relay(self) -> Relay:
        return self.site.relay

    @property
    def model(self) -> Scripted:
        return self.site.model

    async def open(self, session_id: str | None = None, *, connection: str | Pattern[str] = "Connected") -> None:
        await self.page.goto(f"{self.relay.url}/demo" + (f"?session={session_id}" if session_id else ""))
        await expect(self.connection).to_have_text(connection)

    async def say(self, message: str) -> None:
        await self.field.fill(message)
        await self.field.press("Enter")

    async def ends(self, state: str = "Complete") -> None:
        """Wait until the last reply has ended in this state."""
        await expect(self.outcomes.last).to_contain_text(state)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, title: str) -> Locator:
        """The session of this title in the list."""
        return self.sessions.get_by_role("link", name=title)

    async def choose(self, title: str, choice: str) -> None:
        """Choose from the menu of a session."""
        await self.button(f"More for “{title}”").press("Enter")
        await self.page.get_by_role("menuitem", name=choice, exact=True).press("Enter")

    async def hide(self, hidden: bool = True) -> None:
        """Do as a browser does when its user looks at another tab, or comes back."""
        value = "hidden" if hidden else "visible"
        await self.page.evaluate(
            """(value) => {
                Object.defineProperty(document, 'visibilityState', {value, configurable: true});
                document.dispatchEvent(new Event('visibilitychange'));
            }""",
            value,
        )

    async def alter(self, script: str, old: str, new: str) -> None:
        """Serve a script of the page with something else in it. Call this before `open`."""

        async def serve(route: Route) -> None:
            response = await route.fetch()
            source = await response.text()
            assert old in source, f"expected {old!r} in {script}"
            await route.fulfill(response=response, body=source.replace(old, new))

        await self.page.route(f"**/{script}", serve)

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
    context = await browser.new_context(reduced_motion="reduce", **(options or {}))
    try:
        async with tab(context, site) as demo:
            yield demo
    finally:
        await context.close()


@asynccontextmanager
async def tab(context: BrowserContext, site: Site) -> AsyncIterator[Demo]:
    """A tab, which shares its browser's connections with other tabs of the same context."""
    page = await context.new_page()
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
    await page.close()

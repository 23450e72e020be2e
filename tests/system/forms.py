"""A page with streaming forms, and endpoints whose answers a test lets out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi.responses import HTMLResponse, StreamingResponse
from playwright.async_api import Browser, Page

from tailrace import create_streaming_endpoint, get_streaming_html, get_streaming_js
from tailrace.testing import Relay, relayed
from tests.chat.browsing import PATIENCE
from tests.routing.apps import Recording
from tests.serving import serving
from tests.sources import Faucet

NONCE = "bm9uY2U/Kw=="

POLICY = f"default-src 'none'; script-src 'nonce-{NONCE}'; connect-src 'self'; base-uri 'none'; form-action 'none'"


def page_of(*parts: str, style: str = "") -> str:
    """Return a page. With a style, its policy has to allow that."""
    head = f"<style>{style}</style>" if style else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Forms</title>{head}<main><h1>Forms</h1>{''.join(parts)}</main></html>"
    )


def form(form_id: str = "ask", label: str = "Question", endpoint: str = "/ask", **options: Any) -> str:
    return get_streaming_html(form_id, label) + get_streaming_js(form_id, endpoint, nonce=NONCE, **options)


class Stage:
    """An application with one page and the endpoints /ask and /tell."""

    def __init__(self) -> None:
        self.app = Recording()
        self.html = page_of(form())
        self.policy = POLICY
        self.messages: list[str] = []
        self.faucets = {path: Faucet() for path in ("/ask", "/tell")}
        for path in self.faucets:
            self._add(path)
        self.app.get("/")(self._page)
        self.app.post("/plain", response_class=StreamingResponse)(self._plain)
        self.relay: Relay

    def _add(self, path: str) -> None:
        async def answer(message: str) -> AsyncIterator[Any]:
            self.messages.append(message)
            return self.faucets[path].run()

        create_streaming_endpoint(self.app, path, answer)

    async def _page(self) -> HTMLResponse:
        return HTMLResponse(self.html, headers={"Content-Security-Policy": self.policy})

    async def _plain(self) -> StreamingResponse:
        return StreamingResponse(self.faucets["/ask"].run(), media_type="text/plain")


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    stage = Stage()
    async with serving(stage.app) as url, relayed(url) as relay:
        stage.relay = relay
        yield stage


class Form:
    """A form as its user sees it."""

    def __init__(self, page: Page, selector: str = "#ask") -> None:
        self.root = page.locator(selector)
        self.field = self.root.locator("[name=message]")
        self.send = self.root.get_by_role("button", name="Send", exact=True)
        self.stop = self.root.get_by_role("button", name="Stop", exact=True)
        self.status = self.root.get_by_role("status")
        self.answer = self.root.get_by_role("group", name="Answer", exact=True)

    async def ask(self, message: str = "why?") -> None:
        await self.field.fill(message)
        await self.field.press("Enter")


@asynccontextmanager
async def visiting(browser: Browser, stage: Stage, **options: Any) -> AsyncIterator[Page]:
    """A visit that fails if a script fails, or the page asks for anything that its policy forbids."""
    context = await browser.new_context(reduced_motion="reduce", **options)
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        await page.goto(stage.relay.url)
        yield page
        # Chromium itself tells of each connection that is lost and each refusal.
        assert [line for line in trouble if not line.startswith("Failed to load resource")] == []
        assert await page.evaluate("globalThis.hacked") is None
    finally:
        await context.close()

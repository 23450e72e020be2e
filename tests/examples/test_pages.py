"""The pages of the examples in headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser, Page, expect

from tailrace.examples import demo, streaming
from tests.chat.browsing import PATIENCE, chromium
from tests.serving import http_client, serving
from tests.system.forms import Form

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield page
    await page.close()
    assert [line for line in trouble if not line.startswith("Failed to load resource")] == []


async def test_the_minimal_example_repeats_a_message(page: Page) -> None:
    async with serving(streaming.app) as url:
        await page.goto(url)
        form = Form(page)
        await form.ask("two words")
        await expect(form.answer).to_have_text("You wrote: two words")
        await expect(form.status).to_have_text("Complete.")


async def test_the_demo_answers_two_forms_at_once(page: Page) -> None:
    async with serving(demo.app) as url:
        await page.goto(url)
        story, countdown = Form(page, "#story"), Form(page, "#countdown")
        await story.ask("a heron")
        await countdown.ask("14")
        await expect(story.answer).to_contain_text("Once there was a heron.")
        await expect(countdown.status).to_have_text(
            "Failed: This counter is superstitious and stops before 13. The answer is incomplete."
        )
        await expect(countdown.answer).to_have_text("14\n")
        await page.reload()
        await expect(story.answer).to_contain_text("Once there was a heron.")
        await story.stop.click()
        await expect(story.status).to_have_text("Stopped. The answer is incomplete.")
        await countdown.ask("x")
        await expect(countdown.status).to_have_text("Failed: expected a number from 0 to 1000, but got 'x'.")


@pytest.mark.parametrize(
    ("message", "language", "said"), [("0", "fr-CH,en", "0. Bonjour!"), ("1", "tlh", "1\n0. Hello!")]
)
async def test_the_demo_counts_down_and_greets(message: str, language: str, said: str) -> None:
    answer = await ask(demo.app, "/count", message, {"Accept-Language": language})
    assert (answer.status_code, answer.text) == (200, said)


async def test_the_demo_refuses_the_pages_of_others() -> None:
    answer = await ask(demo.app, "/tell", "hi", {"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.json()) == (403, {"detail": "This form belongs to another page."})


async def test_the_demo_tells_its_story_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACE", 0)
    answer = await ask(demo.app, "/tell", "{}", {})
    assert answer.text == f"Hello!\n\n{demo.STORY.format('{}', '{}')}"


async def ask(app: FastAPI, path: str, message: str, headers: dict[str, str]) -> httpx.Response:
    async with serving(app) as url, http_client(url) as client:
        return await client.post(path, data={"message": message}, headers=headers)

"""The panel of the chat page that shows the lines of a reply's stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, expect

from tests.chat.api.talking import Hold, text
from tests.chat.browsing import Demo, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


def figure(demo: Demo, name: str) -> Locator:
    return demo.page.locator("#figures > div", has_text=name).locator("dd")


async def test_the_panel_shows_each_line_as_it_arrives(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two", options=CLIPBOARD) as demo:
        await demo.open()
        panel = demo.page.get_by_role("complementary", name="Protocol")
        await demo.button("Protocol").press("Enter")
        await expect(panel.get_by_text("Each line of the reply’s stream appears here")).to_be_visible()
        await expect(demo.button("Close the protocol panel")).to_be_focused()
        await demo.say("Go")
        lines = panel.locator("li code")
        await expect(lines).to_have_count(3)
        await expect(panel.locator("li").first).to_contain_text("POST /chat/stream?html=true")
        await expect(panel.locator("li").nth(1)).to_contain_text("200 application/x-ndjson")
        await expect(figure(demo, "Chunks")).to_have_text("1")
        hold.release.set()
        await demo.ends()
        await expect(lines.last).to_contain_text('"type":"complete"')
        await demo.button("Copy").last.press("Enter")
        await expect(demo.announced).to_have_text("Copied")
        copied = await demo.page.evaluate("navigator.clipboard.readText()")
        objects = [json.loads(line) for line in copied.splitlines()]
        assert text(objects) == "one two"
        assert await lines.count() == len(objects)
        await expect(figure(demo, "Bytes")).to_have_text(f"{len(copied.encode()) / 1000:.1f} kB")
        await expect(figure(demo, "First chunk")).to_contain_text("ms")
        await expect(figure(demo, "Reconnects")).to_have_text("0")
        await demo.page.keyboard.press("Escape")
        await expect(panel).to_be_hidden()
        await expect(demo.button("Protocol")).to_be_focused()


async def test_the_panel_counts_reconnects_also_while_it_is_closed(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        demo.relay.cut_after(0)
        hold.release.set()
        await demo.ends()
        await demo.button("Protocol").click()
        await expect(figure(demo, "Reconnects")).to_have_text("1")
        await expect(demo.page.locator("#lines .bad")).to_contain_text("next attempt in")
        await expect(figure(demo, "Chunks")).to_have_text("3")


async def test_the_panel_keeps_a_bounded_number_of_lines(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, *["a word "] * 700) as demo:
        await demo.open()
        await demo.button("Protocol").click()
        await demo.say("Go")
        await demo.ends()
        await expect(figure(demo, "Chunks")).to_have_text("701")
        await expect(demo.page.locator("#lines li")).to_have_count(500)
        await expect(demo.page.locator("#lines li").last).to_be_in_viewport()

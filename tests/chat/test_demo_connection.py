"""The chat page and its network: what is lost, restarted, hidden or asleep, and how the page says so."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tailrace.chat.models.base import ModelError
from tests.chat.api.talking import Hold
from tests.chat.browsing import Demo, serving_site, tab, visiting
from tests.chat.proxying import behind_nginx

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECONNECTING = re.compile("^Reconnecting")


async def test_a_lost_connection_is_said_and_the_reply_goes_on_without_a_gap(browser: Browser, tmp_path: Path) -> None:
    first, second = Hold(), Hold()
    async with visiting(browser, tmp_path, "one ", first, "two ", "“three” ", second, "four") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        demo.relay.cut_after(150)  # in the middle of a line
        demo.relay.refuse()
        first.release.set()
        await expect(demo.announced).to_have_text("Connection lost. Reconnecting.")
        demo.relay.refuse(False)
        await demo.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(demo.announced).to_have_text("Connected again")
        await expect(demo.connection).to_have_text("Connected")
        await expect(demo.replies).to_have_text("one two “three”")
        second.release.set()
        await demo.ends()
        await expect(demo.replies).to_have_text("one two “three” four")
        assert await demo.stored() == [("one two “three” four", "complete")]
        assert len(demo.model.asked) == 1


STATES = """
() => {
    window.states = new Set();
    const look = () => states.add(document.querySelector('#state').textContent);
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""


async def test_what_is_over_in_a_moment_is_not_said(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        await demo.alter("connection.js", "GRACE = 500;", "GRACE = 30_000;")  # how long a slow machine's moment is
        await demo.open()
        await demo.page.evaluate(STATES)
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        await demo.chat.health(active_connections=1)  # the reply's: the page does not follow changes meanwhile
        demo.relay.cut_after(0)
        hold.release.set()
        await demo.ends()
        await demo.chat.health(active_connections=1)  # it follows them again
        await expect(demo.link("Go")).to_contain_text("2 messages")
        assert await demo.page.evaluate("[...states]") == ["Connected"]


async def test_a_server_that_is_busy_is_not_called_gone(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        busy: dict[str, Any] = {"status": 429, "headers": {"retry-after": "20"}, "body": "{}"}
        await demo.page.route("**/chat/stream?*", lambda route: route.fulfill(**busy))
        await demo.say("Go")
        await expect(demo.connection).to_have_text(re.compile(r"^Server busy, retry in \d+ s$"))
        await expect(demo.announced).to_have_text("The server is busy. Waiting.")
        await demo.button("Stop").press("Enter")
        await expect(demo.notice).to_contain_text("The server is busy. Your message is kept below")
        await demo.page.unroute("**/chat/stream?*")
        await demo.button("Send again").click()
        await demo.ends()
        assert len(demo.model.asked) == 1


async def test_a_page_that_found_no_server_starts_when_there_is_one(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        requests = re.compile(rf"^{demo.relay.url}/(sessions.*)?$")
        await demo.page.route(requests, lambda route: route.abort())
        await demo.open(info["session_id"], connection=RECONNECTING)
        await expect(demo.notice).to_contain_text("No response from the server.")
        await demo.page.unroute(requests)
        await demo.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(demo.said).to_have_text("First")
        await expect(demo.connection).to_have_text("Connected")
        await expect(demo.notice).to_be_hidden()
        await expect(demo.link("First")).to_be_visible()


WATCH = """
() => {
    window.seen = [];
    const look = () => seen.push(document.querySelector('.message.assistant .said').textContent.trim());
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""


async def test_a_restarted_server_is_read_at_once_and_the_text_stays_until_then(
    browser: Browser, tmp_path: Path
) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", "two", hold, ModelError("it broke")) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one two")
        async with demo.site.restarting():
            await expect(demo.connection).to_have_text(RECONNECTING)
            await demo.page.evaluate(WATCH)
            hold.release.set()
        await demo.page.evaluate("dispatchEvent(new Event('online'))")
        await demo.ends("Failed")
        await expect(demo.connection).to_have_text("Connected")
        await expect(demo.replies).to_have_text("one two")
        await expect(demo.problem).to_contain_text("Partial reply saved.")
        assert set(await demo.page.evaluate("seen")) == {"one two"}


async def test_an_idle_page_says_within_seconds_that_the_server_is_gone(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        # So that it is the click that ends the wait.
        await demo.alter("changes.js", "limit: Infinity, cap: 10", "limit: Infinity, base: 1e5, cap: 1e5")
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        async with demo.site.restarting():
            await expect(demo.connection).to_have_text(RECONNECTING, timeout=10_000)
            await expect(demo.page.locator("#connection")).to_have_attribute("data-mark", "lost")
            await expect(demo.announced).to_have_text("Connection lost. Reconnecting.")
            await expect(demo.button("Try now")).to_be_visible()
        await demo.button("Try now").click()
        await expect(demo.connection).to_have_text("Connected")
        await expect(demo.announced).to_have_text("Connected again")


async def test_a_message_whose_answer_is_lost_is_sent_again_but_not_asked_again(
    browser: Browser, tmp_path: Path
) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        demo.relay.cut_after(0)
        await demo.say("Once")
        await demo.ends()
        await expect(demo.replies).to_have_text("one two three")
        await expect(demo.said).to_have_text("Once")
        assert len(demo.model.asked) == 1
        assert await demo.stored() == [("one two three", "complete")]


async def test_a_message_that_cannot_be_sent_is_kept(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.page.context.set_offline(True)
        await demo.say("Later")
        await expect(demo.connection).to_have_text("Offline")
        await demo.button("Stop").press("Enter")
        await expect(demo.notice).to_contain_text("Your message is kept below; you can safely send it again.")
        await expect(demo.field).to_have_value("Later")
        await expect(demo.said).to_have_count(0)
        await demo.page.context.set_offline(False)
        await demo.open()  # the draft and its key survive even that
        await expect(demo.field).to_have_value("Later")
        await demo.field.press("Enter")
        await demo.ends()
        await expect(demo.said).to_have_text("Later")
        assert len(demo.model.asked) == 1


async def test_six_tabs_that_generate_can_be_stopped_and_a_seventh_loads(browser: Browser, tmp_path: Path) -> None:
    """Chromium opens six connections to a host. Hidden tabs give theirs back."""
    async with serving_site(tmp_path, "a part", Hold()) as site, AsyncExitStack() as stack:
        context = await browser.new_context(reduced_motion="reduce")
        stack.push_async_callback(context.close)
        tabs: list[Demo] = []
        for number in range(6):
            demo = await stack.enter_async_context(tab(context, site))
            await demo.open()
            await demo.say(f"Message {number}")
            await expect(demo.replies).to_have_text("a part")
            tabs.append(demo)
            if number < 5:
                await demo.hide()
        await tabs[0].hide(False)
        for demo in (tabs[0], tabs[5]):
            await demo.button("Stop").click()
            await demo.ends("Stopped")
        seventh = await stack.enter_async_context(tab(context, site))
        await seventh.open()
        await expect(seventh.sessions).to_have_count(6)


async def test_windows_that_all_generate_leave_a_connection_for_another(browser: Browser, tmp_path: Path) -> None:
    """Each visible window has one connection: that of its reply, and of the changes only without a reply."""
    async with serving_site(tmp_path, "a part", Hold()) as site, AsyncExitStack() as stack:
        context = await browser.new_context(reduced_motion="reduce")
        stack.push_async_callback(context.close)
        for number in range(4):
            demo = await stack.enter_async_context(tab(context, site))
            await demo.open()
            await demo.say(f"Message {number}")
            await expect(demo.replies).to_have_text("a part")
        other = await stack.enter_async_context(tab(context, site))
        await other.page.goto(f"{site.relay.url}/demo")
        await expect(other.sessions).to_have_count(4)


async def test_a_hidden_tab_gives_its_connections_back_and_reads_on_when_it_is_seen(
    browser: Browser, tmp_path: Path
) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        await demo.hide()
        await demo.chat.health(active_connections=0)
        hold.release.set()
        await demo.hide(False)
        await demo.ends()
        await expect(demo.replies).to_have_text("one two")
        await expect(demo.connection).to_have_text("Connected")
        assert len(demo.model.asked) == 1


async def test_behind_nginx_the_text_arrives_piece_by_piece(browser: Browser, tmp_path: Path) -> None:
    holds = [Hold(), Hold()]
    async with (
        serving_site(tmp_path, "one ", holds[0], "two ", holds[1], "three") as site,
        behind_nginx(site.chat.url, tmp_path) as url,
    ):
        page = await browser.new_page()
        await page.goto(f"{url}/demo")
        await page.get_by_label("Message", exact=True).fill("Go")
        await page.get_by_label("Message", exact=True).press("Enter")
        reply = page.locator(".message.assistant .said")
        await expect(reply).to_have_text("one")
        holds[0].release.set()
        await expect(reply).to_have_text("one two")
        holds[1].release.set()
        await expect(reply).to_have_text("one two three")
        await page.close()

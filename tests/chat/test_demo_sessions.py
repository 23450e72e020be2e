"""The sessions on the chat page: listed, searched, renamed, cleared and deleted, here and in other tabs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.chat.api.talking import Hold
from tests.chat.browsing import serving_site, tab, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_sessions_are_switched_by_keys(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        for title in ("First", "Second"):
            await demo.chat.say(title)
        await demo.open()
        await demo.link("First").press("Enter")
        await expect(demo.said).to_have_text("First")
        await expect(demo.page).to_have_title("First – tailrace chat")
        await demo.button("New session").press("Enter")
        await expect(demo.page.get_by_role("heading", name="Ask something")).to_be_visible()
        await expect(demo.page).to_have_title("tailrace chat")
        await demo.page.go_back()
        await expect(demo.said).to_have_text("First")


async def test_a_session_is_deleted_only_after_a_question(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        await demo.chat.say("Second")
        await demo.open(info["session_id"])
        await expect(demo.said).to_have_text("First")
        await demo.choose("First", "Delete")
        dialog = demo.page.get_by_role("dialog")
        await expect(dialog).to_contain_text("Delete “First”?")
        await demo.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert (await demo.chat.get("/sessions"))["total"] == 2
        await demo.choose("First", "Delete")
        await dialog.get_by_role("button", name="Delete").press("Enter")
        await expect(demo.link("First")).to_have_count(0)
        await expect(demo.said).to_have_count(0)
        assert (await demo.chat.get("/sessions"))["total"] == 1
        await demo.open(info["session_id"])
        await expect(demo.notice).to_contain_text("This session does not exist.")


async def test_a_session_is_renamed_in_place(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        await demo.open(info["session_id"])
        await demo.choose("First", "Rename")
        field = demo.page.get_by_label("New title for “First”")
        await expect(field).to_be_focused()
        await field.fill("Not this")
        await field.press("Escape")
        await expect(demo.link("First")).to_be_focused()
        await demo.choose("First", "Rename")
        await field.fill("<b>Better</b>")
        await field.press("Enter")
        await expect(demo.link("<b>Better</b>")).to_be_visible()
        await expect(demo.page).to_have_title("<b>Better</b> – tailrace chat")
        assert (await demo.chat.get(f"/sessions/{info['session_id']}"))["title"] == "<b>Better</b>"


async def test_a_session_is_cleared_and_goes_on(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        await demo.open(info["session_id"])
        await demo.choose("First", "Clear messages")
        await demo.page.get_by_role("dialog").get_by_role("button", name="Clear").press("Enter")
        await expect(demo.said).to_have_count(0)
        await demo.say("Again")
        await demo.ends()
        assert [message.text for message in demo.model.asked[-1]] == ["Again"]


async def test_the_menu_of_a_session_is_used_by_keys(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.chat.say("First")
        await demo.open()
        opener = demo.button("More for “First”")
        await opener.press("Enter")
        await expect(opener).to_have_attribute("aria-expanded", "true")
        items = demo.page.get_by_role("menuitem")
        for key, name in (
            ("ArrowDown", "Clear messages"),
            ("End", "Delete"),
            ("ArrowDown", "Rename"),
            ("ArrowUp", "Delete"),
        ):
            await demo.page.keyboard.press(key)
            await expect(items.filter(has_text=name)).to_be_focused()
        await demo.page.keyboard.press("Escape")
        await expect(items).to_have_count(0)
        await expect(opener).to_be_focused()
        await expect(opener).to_have_attribute("aria-expanded", "false")


async def test_the_button_of_a_menu_closes_it_too(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.chat.say("First")
        await demo.chat.say("Second")
        await demo.open()
        first, second = demo.button("More for “First”"), demo.button("More for “Second”")
        menu = demo.page.get_by_role("menu")
        await first.click()
        await expect(menu).to_be_visible()
        await first.click()
        await expect(menu).to_be_hidden()
        await second.click()
        await expect(second).to_have_attribute("aria-expanded", "true")
        await first.click(force=True)  # the menu of the other may cover it
        await first.press("Enter")
        await expect(second).to_have_attribute("aria-expanded", "false")


async def test_sessions_are_found_by_their_titles_and_messages(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.chat.say("About rivers")
        await demo.chat.say("About logs")
        await demo.open()
        await expect(demo.sessions).to_have_count(2)
        search = demo.page.get_by_label("Search sessions")
        await search.fill("LOGS")
        await expect(demo.sessions).to_have_count(1)
        await expect(demo.link("About logs")).to_be_visible()
        await search.fill("100%")
        await expect(demo.page.get_by_text("No session contains “100%”.")).to_be_visible()
        await search.fill("")
        await expect(demo.sessions).to_have_count(2)


async def test_earlier_messages_and_sessions_are_shown_when_they_are_asked_for(
    browser: Browser, tmp_path: Path
) -> None:
    async with visiting(browser, tmp_path, "ok") as demo:
        (info, *_) = await demo.chat.say("message 0")
        for number in range(1, 42):
            await demo.chat.say(f"message {number}", info["session_id"])
        for _ in range(31):
            await demo.chat.post("/sessions/new")
        await demo.open(info["session_id"])
        await expect(demo.said).to_have_count(40)
        await demo.button("Earlier messages").press("Enter")
        await expect(demo.said).to_have_count(42)
        assert await demo.said.all_text_contents() == [f"message {number}" for number in range(42)]
        await expect(demo.button("Earlier messages")).to_be_hidden()
        await expect(demo.sessions).to_have_count(30)
        await demo.button("More sessions").press("Enter")
        await expect(demo.sessions).to_have_count(32)
        await expect(demo.page.locator("#list a").nth(30)).to_be_focused()


async def test_the_list_and_the_history_follow_what_happens_elsewhere(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        session_id = (await demo.chat.post("/sessions/new"))["session_id"]
        await demo.open(session_id)
        await expect(demo.sessions).to_have_count(1)
        async with demo.chat.saying("From elsewhere", session_id) as other:
            await expect(demo.said).to_have_text("From elsewhere")
            await expect(demo.replies).to_have_text("one")
            await expect(demo.link("From elsewhere")).to_contain_text("Generating")
            hold.release.set()
            await other.rest()
        await demo.ends()
        await expect(demo.link("From elsewhere")).to_contain_text("2 messages")
        await demo.chat.say("A session more")
        await expect(demo.sessions).to_have_count(2)
        await demo.chat.delete(f"/sessions/{session_id}")
        await expect(demo.notice).to_contain_text("This session was deleted")
        await expect(demo.said).to_have_count(0)
        await expect(demo.sessions).to_have_count(1)


async def test_a_tab_that_was_asleep_shows_the_whole_history_before_it_sends(browser: Browser, tmp_path: Path) -> None:
    async with serving_site(tmp_path) as site:
        context = await browser.new_context(reduced_motion="reduce")
        async with tab(context, site) as first, tab(context, site) as second:
            await first.open()
            await first.say("One")
            await first.ends()
            await second.open(first.session_id)
            await expect(second.said).to_have_text("One")
            await second.hide()
            await site.chat.health(active_connections=1)
            await first.say("Two")
            await expect(first.outcomes).to_have_count(2)
            await first.ends()
            await second.page.evaluate(
                "(now) => (Date.now = () => now + 60_000)", await second.page.evaluate("Date.now()")
            )
            there = asyncio.Event()

            async def late(route: Route) -> None:
                await there.wait()
                await route.continue_()

            await second.page.route("**/sessions/*limit=1&*", late)
            await second.say("Three")
            await second.field.press("Enter")  # once more, because nothing seems to happen
            there.set()
            await expect(second.said).to_have_text(["One", "Two", "Three"])
            await second.ends()
            assert [message.text for message in site.model.asked[-1]][::2] == ["One", "Two", "Three"]
        await context.close()


async def test_a_message_is_never_sent_in_another_session(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.chat.say("First")
        info, *_ = await demo.chat.say("Second")
        await demo.open(info["session_id"])
        await expect(demo.said).to_have_text("Second")
        await demo.page.evaluate("(now) => (Date.now = () => now + 60_000)", await demo.page.evaluate("Date.now()"))
        there = asyncio.Event()

        async def late(route: Route) -> None:
            await there.wait()
            await route.continue_()

        await demo.page.route("**/sessions/*limit=1&*", late)
        await demo.say("For the second")
        await demo.link("First").click()
        await expect(demo.said).to_have_text("First")
        async with demo.page.expect_response("**/sessions/*limit=1&*"):
            there.set()
        await demo.say("For the first")
        await expect(demo.said).to_have_text(["First", "For the first"])
        await demo.ends()
        await demo.link("Second").click()
        await expect(demo.field).to_have_value("For the second")


async def test_drafts_survive_a_reload_each_in_its_session(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        await demo.open()
        await demo.field.fill("a new thought")
        await demo.link("First").click()
        await expect(demo.said).to_have_text("First")
        await expect(demo.field).to_have_value("")
        await demo.field.fill("about the first")
        await demo.page.reload()
        await expect(demo.field).to_have_value("about the first")
        await demo.button("New session").click()
        await expect(demo.field).to_have_value("a new thought")
        await demo.open(info["session_id"])
        await expect(demo.field).to_have_value("about the first")
        await demo.field.press("Enter")
        await demo.ends()
        await demo.open(info["session_id"])
        await expect(demo.said).to_have_count(2)
        await expect(demo.field).to_have_value("")


async def test_what_was_written_in_a_session_survives_the_session(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        info, *_ = await demo.chat.say("First")
        await demo.open()
        await demo.field.fill("in no session yet")
        await demo.link("First").click()
        await expect(demo.said).to_have_text("First")
        await demo.field.fill("in the first")
        await demo.chat.delete(f"/sessions/{info['session_id']}")
        await expect(demo.notice).to_contain_text("This session was deleted")
        await expect(demo.field).to_have_value("in the first\n\nin no session yet")


async def test_what_happens_elsewhere_meanwhile_is_shown_when_the_reply_has_ended(
    browser: Browser, tmp_path: Path
) -> None:
    async with visiting(browser, tmp_path, "one ", Hold()) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        await demo.chat.post(f"/sessions/{demo.session_id}/clear")
        await expect(demo.said).to_have_count(0)
        await expect(demo.page.get_by_text("Ask something")).to_be_visible()

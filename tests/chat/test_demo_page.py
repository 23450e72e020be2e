"""The chat page, driven in headless Chromium as a user would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tailrace.chat.models.base import ModelError
from tests.chat.api.talking import Hold, begun, lines, text
from tests.chat.browsing import chromium, visiting

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_a_message_is_sent_by_keys_and_its_reply_arrives_as_it_is_written(
    browser: Browser, tmp_path: Path
) -> None:
    first, second = Hold(), Hold()
    async with visiting(browser, tmp_path, first, "one ", second, "two") as demo:
        await demo.open()
        await expect(demo.field).to_be_focused()
        await expect(demo.page.locator("#model")).to_have_text("Model: scripted")
        await expect(demo.page.get_by_text("prepared text")).to_be_hidden()
        await demo.field.press_sequentially("Hi")
        await demo.field.press("Shift+Enter")
        await demo.field.press_sequentially("there")
        await demo.field.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
        await expect(demo.said).to_have_count(0)
        await demo.field.press("Enter")

        await expect(demo.said).to_have_text("Hi\nthere", use_inner_text=True)
        await expect(demo.field).to_have_value("")
        await expect(demo.field).to_be_focused()
        await expect(demo.state).to_have_text("Generating · waiting for the first words")
        await expect(demo.announced).to_have_text("Generating")
        await expect(demo.button("Send")).to_be_hidden()
        first.release.set()
        await expect(demo.replies).to_have_text("one ")
        await expect(demo.state).to_have_text("Generating · 1 chunk")
        second.release.set()
        await expect(demo.replies).to_have_text("one two")
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.announced).to_have_text("Complete")
        await expect(demo.facts).to_have_text(re.compile(r"^Complete · 3 chunks · \d+\.\d s · 1 message of context$"))
        assert await demo.stored() == [("one two", "complete")]
        assert [message.text for message in demo.model.asked[0]] == ["Hi\nthere"]
        await expect(demo.page.get_by_role("link", name="Hi")).to_have_attribute("aria-current", "page")


async def test_a_message_that_is_sent_before_the_page_is_there_waits_for_it(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "the reply") as demo:
        there = asyncio.Event()

        async def late(route: Route) -> None:
            await there.wait()
            await route.continue_()

        await demo.page.route(f"{demo.relay.url}/", late)
        await demo.open(state="Connecting")
        await demo.say("Hi")
        await expect(demo.field).to_have_value("Hi")
        there.set()
        await expect(demo.said).to_have_text("Hi")
        await expect(demo.replies).to_have_text("the reply")
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.field).to_have_value("")


async def test_stop_stops_the_model_and_keeps_what_it_wrote(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "a part", hold, "never") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("a part")
        await demo.say("More")  # not while it is answering
        await expect(demo.announced).to_have_text("Wait until the reply has ended, or stop it")
        await demo.field.press("Tab")
        await expect(demo.button("Stop")).to_be_focused()
        await demo.page.keyboard.press("Enter")
        await expect(demo.state).to_have_text("Stopped")
        await expect(demo.facts).to_have_text(re.compile("^Stopped · 2 chunks"))
        await expect(demo.field).to_be_focused()
        await expect(demo.field).to_have_value("More")
        assert demo.model.closed == 1
        assert await demo.stored() == [("a part", "stopped")]


async def test_a_reload_reads_on_where_the_reply_is(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "# One\n\n", "two ", hold, "three") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("Onetwo ")
        await demo.open(demo.session_id, state="Generating")
        await expect(demo.replies).to_have_text("Onetwo ")
        await expect(demo.said).to_have_text("Go")
        hold.release.set()
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.replies).to_have_text("Onetwo three")
        assert await demo.stored() == [("# One\n\ntwo three", "complete")]
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("Onetwo three")
        await expect(demo.facts).to_have_text(re.compile("^Complete · 4 chunks"))
        assert len(demo.model.asked) == 1


async def test_a_lost_connection_is_said_and_the_reply_goes_on_without_a_gap(browser: Browser, tmp_path: Path) -> None:
    first, second = Hold(), Hold()
    async with visiting(browser, tmp_path, "one ", first, "two ", "“three” ", second, "four") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one ")
        demo.relay.cut_after(150)  # in the middle of a line
        first.release.set()
        await expect(demo.state).to_have_text(re.compile(r"^Reconnecting in 0\.\d s: the connection was lost\."))
        await expect(demo.announced).to_have_text("Connected again")
        await expect(demo.replies).to_have_text("one two “three” ")
        second.release.set()
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.replies).to_have_text("one two “three” four")
        assert await demo.stored() == [("one two “three” four", "complete")]
        assert len(demo.model.asked) == 1


NARROW = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}

WATCH = """
() => {
    window.seen = [];
    const look = () => seen.push([
        document.querySelector('#state').textContent,
        document.querySelector('.message.assistant .said').textContent,
    ]);
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
            # The second wait shows that waits have grown.
            await expect(demo.state).to_have_text(re.compile("^Reconnecting in"))
            await demo.page.evaluate("dispatchEvent(new Event('online'))")
            await expect(demo.state).to_have_text(re.compile("^Reconnecting in"))
            await demo.page.evaluate(WATCH)
            hold.release.set()
        await demo.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(demo.state).to_have_text("Failed")
        await expect(demo.replies).to_have_text("one two")
        await expect(demo.facts).to_contain_text("What came before is kept.")
        seen = await demo.page.evaluate("seen")
        assert {text for _, text in seen} == {"one two"}
        states = [state for state, _ in seen]
        assert not any(state.startswith("Reconnecting") for state in states[states.index("Generating") :])


async def test_a_message_whose_answer_is_lost_is_sent_again_but_not_asked_again(
    browser: Browser, tmp_path: Path
) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        demo.relay.cut_after(0)
        await demo.say("Once")
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.replies).to_have_text("one two three")
        await expect(demo.said).to_have_text("Once")
        assert len(demo.model.asked) == 1
        assert await demo.stored() == [("one two three", "complete")]


async def test_text_of_a_model_is_never_html(browser: Browser, tmp_path: Path) -> None:
    evil = [
        "<img src=x onerror=document.title='bad'> <script>document.title='bad'</script>\n\n",
        "[tempting](javascript:document.title='bad') [data](data:text/html,bad) ![pixel](https://example.org/p.png)\n\n",
        "# <b>bold</b>\n\n| <i>a</i> |\n|---|\n| `<u>` |\n\n```<svg>\n</code></pre><script>\n```\n",
    ]
    async with visiting(browser, tmp_path, *evil) as demo:
        await demo.open()
        await demo.say("<b>Mine</b>")
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.said).to_have_text("<b>Mine</b>")
        found = await demo.replies.evaluate(
            "(reply) => [...reply.querySelectorAll('img, script, b, i, u, svg, iframe, style')].length"
        )
        assert found == 0
        links = await demo.replies.locator("a").all()
        assert [await link.get_attribute("href") for link in links] == ["https://example.org/p.png"]
        assert [await link.get_attribute("rel") for link in links] == ["noopener noreferrer nofollow"]
        await expect(demo.replies).to_contain_text("<img src=x onerror=document.title='bad'> <script>")
        await expect(demo.replies).to_contain_text("tempting (javascript:document.title='bad')")
        await expect(demo.replies).to_contain_text("</code></pre><script>")


async def test_a_failed_reply_says_why_and_can_be_asked_again(browser: Browser, tmp_path: Path) -> None:
    failure = ModelError("the model is tired", code="model_error")
    async with visiting(browser, tmp_path, "a part", failure) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.state).to_have_text("Failed")
        await expect(demo.facts).to_have_text(
            re.compile(r"^Failed · 1 chunk .*\. The model is tired\. What came before is kept\.Ask again$")
        )
        await expect(demo.replies).to_have_text("a part")
        await demo.open(demo.session_id)  # the same is said of what was stored
        await expect(demo.facts).to_have_text(re.compile(r"The model is tired\. What came before is kept\.Ask again$"))
        demo.model.steps = ("whole",)
        await demo.button("Ask again").click()
        await expect(demo.state).to_have_text("Complete")
        assert await demo.stored() == [("a part", "failed"), ("whole", "complete")]


async def test_a_session_that_answers_another_is_shown_and_the_message_kept(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        session_id = (await demo.chat.post("/sessions/new"))["session_id"]
        await demo.open(session_id)
        async with demo.chat.saying("From elsewhere", session_id) as other:
            before = await begun(other, "one ")
            await demo.say("Mine")
            await expect(demo.notice).to_contain_text("still answering another message. Yours is kept below")
            await expect(demo.field).to_have_value("Mine")
            await expect(demo.said).to_have_text("From elsewhere")
            await expect(demo.replies).to_have_text("one ")
            hold.release.set()
            await expect(demo.state).to_have_text("Complete")
            await expect(demo.replies).to_have_text(text(before + lines(await other.rest())))


async def test_sessions_are_switched_and_deleted_by_keys(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        for title in ("First", "Second"):
            await demo.chat.say(title)
        await demo.open()
        await demo.page.get_by_role("link", name="First").press("Enter")
        await expect(demo.said).to_have_text("First")
        await expect(demo.page).to_have_title("First – tailrace chat")
        first = demo.session_id
        await demo.button("New session").press("Enter")
        await expect(demo.page.get_by_role("heading", name="Ask something")).to_be_visible()
        await demo.page.go_back()
        await expect(demo.said).to_have_text("First")

        await demo.button("Delete “First”").press("Enter")
        await expect(demo.page.get_by_role("dialog")).to_contain_text("Delete “First”?")
        await demo.page.keyboard.press("Escape")
        await expect(demo.page.get_by_role("dialog")).to_be_hidden()
        assert (await demo.chat.get("/sessions"))["total"] == 2
        await demo.button("Delete “First”").press("Enter")
        await demo.button("Delete").press("Enter")
        await expect(demo.page.get_by_role("link", name="First")).to_have_count(0)
        await expect(demo.said).to_have_count(0)
        assert (await demo.chat.get("/sessions"))["total"] == 1
        await demo.open(first)
        await expect(demo.notice).to_contain_text("This session is not there")


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
        await expect(demo.page.locator("#list li")).to_have_count(30)
        await demo.button("More sessions").press("Enter")
        await expect(demo.page.locator("#list li")).to_have_count(32)
        await expect(demo.page.locator("#list a").nth(30)).to_be_focused()


async def test_a_key_is_asked_for_where_the_server_needs_one(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, key="the right key") as demo:
        await demo.open(state="An API key is needed")
        field = demo.page.get_by_label("This server asks for an API key")
        await expect(field).to_be_focused()
        await expect(demo.page.get_by_text("kept in this tab’s session storage")).to_be_visible()
        await field.fill("a wrong key")
        await field.press("Enter")
        await expect(demo.notice).to_contain_text("The server does not know this API key")
        await field.fill("the right key")
        await field.press("Enter")
        await expect(demo.state).to_have_text("Connected")
        await demo.say("Go")
        await expect(demo.state).to_have_text("Complete")
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("one two three")


async def test_only_who_reads_the_end_is_taken_along(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    long = "A line.\n\n" * 60
    async with visiting(browser, tmp_path, long, hold, long, options=NARROW) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies.locator("p")).to_have_count(60)
        await expect(demo.replies.locator("p").last).to_be_in_viewport()
        await demo.page.get_by_label("Conversation").press("Home")
        await expect(demo.said).to_be_in_viewport()
        hold.release.set()
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.said).to_be_in_viewport()
        await demo.button("↓ To the newest").click()
        await expect(demo.replies.locator("p").last).to_be_in_viewport()
        await expect(demo.button("↓ To the newest")).to_be_hidden()
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        await demo.button("Sessions").press("Enter")
        await expect(demo.page.get_by_role("link", name="Go")).to_be_visible()
        await demo.page.get_by_role("link", name="Go").press("Escape")
        await expect(demo.page.get_by_role("link", name="Go")).to_be_hidden()
        await expect(demo.button("Sessions")).to_be_focused()
        await expect(demo.button("Sessions")).to_have_attribute("aria-expanded", "false")


async def test_a_wide_table_is_scrolled_in_its_own_box_and_looks_so(browser: Browser, tmp_path: Path) -> None:
    wide = "| a wide | table |\n|---|---|\n| " + "unbreakable" * 9 + " | end |\n\n"
    async with visiting(browser, tmp_path, wide, options=NARROW) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.state).to_have_text("Complete")
        table = demo.page.get_by_role("group", name="Table")
        assert await table.evaluate("(box) => box.scrollWidth > box.clientWidth && box.clientWidth <= 328")
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        # A shade stays at the edge while the content below it moves.
        drawn = await table.evaluate("(box) => getComputedStyle(box).backgroundAttachment")
        assert drawn.startswith("local, local, scroll, scroll")
        await table.focus()
        for _ in range(40):
            await demo.page.keyboard.press("ArrowRight")
        await expect(table.get_by_role("cell", name="end", exact=True)).to_be_in_viewport()


async def test_a_message_that_cannot_be_sent_is_kept(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.page.context.set_offline(True)
        await demo.say("Later")
        await expect(demo.state).to_have_text(re.compile(r"^Sending again in .* Your message is kept\.$"))
        await demo.button("Stop").press("Enter")
        await expect(demo.notice).to_contain_text("Your message is kept below; sending it again does not ask twice.")
        await expect(demo.field).to_have_value("Later")
        await expect(demo.said).to_have_count(0)
        await demo.page.context.set_offline(False)
        await demo.button("Send again").press("Enter")
        await expect(demo.state).to_have_text("Complete")
        await expect(demo.said).to_have_text("Later")
        assert len(demo.model.asked) == 1


async def test_what_the_server_refuses_is_said_and_kept(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("x" * 32_001)
        await expect(demo.notice).to_contain_text(
            "Expected a message of at most 32000 characters, but got 32001. Your message is kept below."
        )
        await expect(demo.state).to_have_text("Not sent")
        await demo.button("Close").press("Enter")
        await expect(demo.notice).to_be_hidden()
        await expect(demo.field).to_be_focused()
        assert await demo.field.input_value() == "x" * 32_001

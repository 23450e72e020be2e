"""The chat page, driven in headless Chromium as a user would: messages, replies, and what can be done with them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from tailrace.chat.models.base import ModelError
from tests.chat.api.talking import Hold, begun, lines, text
from tests.chat.browsing import Demo, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
        await expect(demo.outcomes).to_have_text("GeneratingWaiting for the first words")
        await expect(demo.announced).to_have_text("Generating")
        await expect(demo.button("Send")).to_be_hidden()
        first.release.set()
        await expect(demo.replies).to_have_text("one")
        await expect(demo.outcomes).to_have_text("Generating1 chunk · 1 message of context")
        second.release.set()
        await expect(demo.replies).to_have_text("one two")
        await expect(demo.announced).to_have_text("Complete")
        await expect(demo.outcomes).to_have_text(re.compile(r"^Complete3 chunks · \d+\.\d s · 1 message of context$"))
        assert await demo.stored() == [("one two", "complete")]
        assert [message.text for message in demo.model.asked[0]] == ["Hi\nthere"]
        await expect(demo.link("Hi")).to_have_attribute("aria-current", "page")


async def test_a_message_that_is_sent_before_the_page_is_there_waits_for_it(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "the reply") as demo:
        there = asyncio.Event()

        async def late(route: Route) -> None:
            await there.wait()
            await route.continue_()

        await demo.page.route(f"{demo.relay.url}/", late)
        await demo.open()
        await demo.say("Hi")
        await expect(demo.field).to_have_value("Hi")
        there.set()
        await expect(demo.said).to_have_text("Hi")
        await expect(demo.replies).to_have_text("the reply")
        await demo.ends()
        await expect(demo.field).to_have_value("")


async def test_a_message_for_a_session_that_is_not_there_yet_is_sent_in_it(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "the reply") as demo:
        session_id = (await demo.chat.post("/sessions/new"))["session_id"]
        there = asyncio.Event()

        async def late(route: Route) -> None:
            await there.wait()
            await route.continue_()

        await demo.page.route(f"{demo.relay.url}/", late)
        await demo.open(session_id)
        await demo.say("Hi")
        there.set()
        await expect(demo.said).to_have_text("Hi")
        await demo.ends()
        assert demo.session_id == session_id
        await expect(demo.field).to_have_value("")
        await demo.button("New session").click()
        await expect(demo.field).to_have_value("")


async def test_an_example_is_sent_by_a_click(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.page.get_by_role("button", name="Explain what a log is").click()
        await expect(demo.said).to_have_text("Explain what a log is. In three short paragraphs.")
        await demo.ends()
        await expect(demo.page.get_by_text("Ask something")).to_be_hidden()


async def test_an_example_leaves_a_draft_where_it_is(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.field.fill("my own words")
        await demo.page.get_by_role("button", name="Explain what a log is").click()
        await demo.ends()
        await expect(demo.field).to_have_value("my own words")
        await demo.page.reload()
        await expect(demo.field).to_have_value("my own words")


async def test_the_link_to_the_message_field_leaves_the_reply_alone(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        reply = await demo.replies.element_handle()
        await demo.page.get_by_role("link", name="Skip to the message field").press("Enter")
        await expect(demo.page).to_have_url(re.compile("#message$"))
        await expect(demo.field).to_be_focused()
        hold.release.set()
        await demo.ends()
        assert reply is not None
        assert await reply.inner_text() == "one two"  # it is the same element


async def test_stop_stops_the_model_and_keeps_what_it_wrote(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "a part", hold, "never") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("a part")
        await demo.field.press("Tab")
        await expect(demo.button("Stop")).to_be_focused()
        await demo.page.keyboard.press("Enter")
        await demo.ends("Stopped")
        await expect(demo.outcomes).to_contain_text("2 chunks")
        await expect(demo.field).to_be_focused()
        assert demo.model.closed == 1
        assert await demo.stored() == [("a part", "stopped")]


async def test_enter_while_a_reply_is_written_says_what_it_does_and_does_it(browser: Browser, tmp_path: Path) -> None:
    first, second = Hold(), Hold()
    async with visiting(browser, tmp_path, "one", first) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("one")
        await demo.field.fill("More")
        await expect(demo.hint).to_have_text("Enter sends this when the reply ends.")
        await demo.field.press("Enter")
        await expect(demo.hint).to_have_text("Your message is sent when the reply ends. Esc cancels that.")
        await expect(demo.announced).to_have_text("Your message is sent when the reply ends. Esc cancels that.")
        await demo.field.press("Escape")
        await expect(demo.hint).to_have_text("Enter sends this when the reply ends.")
        await demo.field.press("Enter")
        demo.model.steps = ("two", second, ModelError("it broke"))
        first.release.set()
        await expect(demo.said).to_have_text(["Go", "More"])
        await expect(demo.replies).to_have_text(["one", "two"])
        await demo.say("Last")
        second.release.set()
        await demo.ends("Failed")
        await expect(demo.hint).to_contain_text("not sent, because the reply is not complete")
        await expect(demo.field).to_have_value("Last")


async def test_a_reload_reads_on_where_the_reply_is(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "# One\n\n", "two ", hold, "three") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies).to_have_text("Onetwo")
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("Onetwo")
        await expect(demo.said).to_have_text("Go")
        hold.release.set()
        await demo.ends()
        await expect(demo.replies).to_have_text("Onetwo three")
        assert await demo.stored() == [("# One\n\ntwo three", "complete")]
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("Onetwo three")
        await expect(demo.outcomes).to_contain_text("4 chunks")
        assert len(demo.model.asked) == 1


async def test_a_failed_reply_says_why_and_can_be_retried(browser: Browser, tmp_path: Path) -> None:
    failure = ModelError("the model is tired", code="model_error")
    async with visiting(browser, tmp_path, "a part", failure) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends("Failed")
        await expect(demo.problem).to_have_text("The model is tired. Partial reply saved.")
        await expect(demo.announced).to_have_text("Failed. The model is tired. Partial reply saved.")
        await expect(demo.replies).to_have_text("a part")
        await demo.open(demo.session_id)  # the same is said of what was stored
        await expect(demo.problem).to_have_text("The model is tired. Partial reply saved.")
        demo.model.steps = ("whole",)
        await demo.button("Retry").click()
        await demo.ends()
        await expect(demo.said).to_have_text("Go")
        await expect(demo.replies).to_have_text("whole")
        assert await demo.stored() == [("whole", "complete")]


async def test_the_last_reply_is_made_again(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "first") as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        await demo.say("On")
        await expect(demo.outcomes).to_have_count(2)
        await demo.ends()
        await expect(demo.page.get_by_role("button", name="Regenerate")).to_have_count(1)
        demo.model.steps = ("second",)
        await demo.button("Regenerate").press("Enter")
        await expect(demo.replies).to_have_text(["first", "second"])
        await demo.ends()
        assert await demo.stored() == [("first", "complete"), ("second", "complete")]
        assert [message.text for message in demo.model.asked[-1]] == ["Go", "first", "On"]


async def test_the_last_message_is_edited_and_sent_again(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("Goo")
        await demo.ends()
        await demo.button("Edit").press("Enter")
        field = demo.page.get_by_label("Edit your message")
        await expect(field).to_be_focused()
        await field.press("Escape")
        await expect(demo.said).to_have_text("Goo")
        await expect(demo.button("Edit")).to_be_focused()
        await demo.button("Edit").press("Enter")
        await field.press("Backspace")
        await field.press("Enter")
        await expect(demo.said).to_have_text("Go")
        await demo.ends()
        assert [message.text for message in demo.model.asked[-1]] == ["Go"]
        assert await demo.stored() == [("one two three", "complete")]


async def test_a_turn_that_is_not_the_last_any_more_is_not_replaced(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        await demo.button("Edit").press("Enter")
        await demo.page.get_by_label("Edit your message").fill("Changed")
        await demo.chat.say("From elsewhere", demo.session_id)
        await expect(demo.said.last).to_have_text("From elsewhere")
        await demo.page.get_by_label("Edit your message").press("Enter")
        await expect(demo.said).to_have_text(["Go", "From elsewhere"])
        await expect(demo.notice).to_contain_text("This session has changed in another tab.")
        await expect(demo.field).to_have_value("Changed")
        assert len(await demo.stored()) == 2


REFUSAL: dict[str, Any] = {
    "status": 413,
    "content_type": "application/problem+json",
    "body": '{"detail": "it is too large"}',
}


async def test_an_edited_message_that_is_refused_stays_in_its_field(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        await demo.field.fill("a draft")
        await demo.button("Edit").press("Enter")
        field = demo.page.get_by_label("Edit your message")
        await field.fill("Changed")
        await demo.page.route("**/chat/stream?*", lambda route: route.fulfill(**REFUSAL))
        await field.press("Enter")
        await expect(demo.notice).to_contain_text("It is too large. What you wrote is kept.")
        await expect(field).to_have_value("Changed")
        await expect(field).to_be_focused()
        await expect(demo.replies).to_have_text("one two three")
        await expect(demo.field).to_have_value("a draft")
        body = {"message": "New", "session_id": demo.session_id, "replace": await last_stream(demo)}
        assert (await demo.chat.http.post("/chat/stream", json=body)).status_code == 200
        await expect(demo.said).to_have_text("New")
        await expect(demo.field).to_have_value("Changed\n\na draft")


async def last_stream(demo: Demo) -> str:
    messages = (await demo.chat.get(f"/sessions/{demo.session_id}"))["messages"]
    return str(messages[-1]["stream_id"])


async def test_a_reply_that_is_not_made_again_comes_back(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        await demo.page.route("**/chat/stream?*", lambda route: route.abort())
        await demo.button("Regenerate").press("Enter")
        await expect(demo.connection).to_have_text(re.compile("^Reconnecting"))
        await demo.button("Stop").press("Enter")
        await expect(demo.notice).to_contain_text("It is not known whether a new reply has begun.")
        await expect(demo.replies).to_have_text("one two three")
        await expect(demo.field).to_have_value("")
        await demo.page.unroute("**/chat/stream?*")
        await demo.button("Regenerate").press("Enter")
        await expect(demo.outcomes).to_contain_text("1 message of context")
        assert await demo.stored() == [("one two three", "complete")]
        assert len(demo.model.asked) == 2


async def test_messages_and_replies_are_copied(browser: Browser, tmp_path: Path) -> None:
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    async with visiting(browser, tmp_path, "# One\n\n```python\nprint(1)\n```\n", options=options) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        for button, copied in (
            (demo.page.locator(".message.user").get_by_role("button", name="Copy"), "Go"),
            (
                demo.page.locator(".message.assistant .tools").get_by_role("button", name="Copy"),
                "# One\n\n```python\nprint(1)\n```\n",
            ),
            (demo.page.locator(".code").get_by_role("button", name="Copy"), "print(1)\n"),
        ):
            await button.press("Enter")
            await expect(button).to_have_count(0)  # its name is another for a moment
            await expect(demo.announced).to_have_text("Copied")
            assert await demo.page.evaluate("navigator.clipboard.readText()") == copied


async def test_a_session_that_answers_another_is_shown_and_the_message_kept(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "one ", hold, "two") as demo:
        session_id = (await demo.chat.post("/sessions/new"))["session_id"]
        await demo.page.route("**/sessions/changes*", lambda route: route.abort())  # so that it does not know yet
        await demo.open(session_id, connection=re.compile("^Reconnecting"))
        await expect(demo.page.get_by_text("Ask something")).to_be_visible()  # its history is loaded
        async with demo.chat.saying("From elsewhere", session_id) as other:
            before = await begun(other, "one ")
            await demo.say("Mine")
            await expect(demo.notice).to_contain_text(
                "This session is still answering another message. Your message is kept below."
            )
            await expect(demo.field).to_have_value("Mine")
            await expect(demo.said).to_have_text("From elsewhere")
            await expect(demo.replies).to_have_text("one")
            hold.release.set()
            await demo.ends()
            await expect(demo.replies).to_have_text(text(before + lines(await other.rest())))


async def test_a_key_is_asked_for_where_the_server_needs_one(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, key="the right key") as demo:
        await demo.open(connection="API key needed")
        field = demo.page.get_by_label("This server needs an API key")
        await expect(field).to_be_focused()
        await expect(demo.page.get_by_text("stays in this tab")).to_be_visible()
        await expect(demo.button("Send")).to_be_disabled()
        await field.fill("a wrong key")
        await field.press("Enter")
        await expect(demo.notice).to_contain_text("The server does not know this API key")
        await field.fill("the right key")
        await field.press("Enter")
        await expect(demo.connection).to_have_text("Connected")
        await demo.say("Go")
        await demo.ends()
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("one two three")


async def test_what_the_server_refuses_is_said_and_kept(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        await demo.say("x" * 32_001)
        await expect(demo.notice).to_contain_text(
            "Expected a message of at most 32000 characters, but got 32001. Your message is kept below."
        )
        await expect(demo.announced).to_have_text("Not sent")
        await expect(demo.said).to_have_count(0)
        await demo.button("Close").press("Enter")
        await expect(demo.notice).to_be_hidden()
        await expect(demo.field).to_be_focused()
        assert await demo.field.input_value() == "x" * 32_001


async def test_a_message_that_is_refused_keeps_what_was_written_since(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        there = asyncio.Event()

        async def refuse(route: Route) -> None:
            await there.wait()
            await route.fulfill(**REFUSAL)

        await demo.page.route("**/chat/stream?*", refuse)
        await demo.say("First")
        await demo.field.fill("Second")
        there.set()
        await expect(demo.notice).to_contain_text("It is too large. Your message is kept below.")
        await expect(demo.field).to_have_value("First\n\nSecond")

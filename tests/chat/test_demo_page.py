"""The pages, driven in headless Chromium as a user would."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tailrace.chat.models.base import ModelError
from tailrace.chat.models.demo_parts import PARTS
from tests.chat.api.talking import Chat, Hold, Scripted, begun, chatting, lines, text
from tests.system.relay import Relay, relayed
from tests.system.test_browser import ARGUMENTS

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 10_000
"""Milliseconds after which no test waits any more."""

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        await browser.close()


class Demo:
    """The page and the server that it talks with, through a relay that a test can cut."""

    def __init__(self, page: Page, chat: Chat, relay: Relay, model: Scripted) -> None:
        self.page = page
        self.chat = chat
        self.relay = relay
        self.model = model
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
    """A visit that fails if the page fails, or asks for anything that its policy forbids or another server has."""
    model = Scripted(*steps)
    async with AsyncExitStack() as stack:
        changes: dict[str, Any] = {"api_keys": (key,)} if key else {}
        chat = await stack.enter_async_context(chatting(folder, model, key=key, **changes))
        relay = await stack.enter_async_context(relayed(int(chat.url.rpartition(":")[2])))
        page = await browser.new_page(**(options or {}))
        stack.push_async_callback(page.close)
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: trouble.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield Demo(page, chat, relay, model)
        # Chromium itself tells of each connection that is lost and each refusal.
        assert [line for line in trouble if not line.startswith("Failed to load resource")] == []
        assert [url for url in asked if not url.startswith(relay.url)] == []


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
    failure = ModelError("the model is tired", code="model_error", status=502)
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
            assert text(before + lines(await other.rest())) == await demo.replies.text_content()


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
    options = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}
    async with visiting(browser, tmp_path, long, hold, long, options=options) as demo:
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


GROW = """
async ([text, cuts]) => {
    const {Growing} = await import('/assets/render.js');
    const grow = (pieces) => {
        const element = document.createElement('div');
        const growing = new Growing(element);
        for (const piece of pieces) {
            growing.append(piece);
            growing.render();
        }
        return element.innerHTML;
    };
    const whole = grow([text]);
    const differing = cuts.filter((size) => {
        const count = Math.ceil(text.length / size);
        const pieces = Array.from({length: count}, (_, n) => text.slice(n * size, (n + 1) * size));
        return grow(pieces) !== whole;
    });
    return [whole, differing];
}
"""


async def test_markdown_is_the_same_however_it_arrives(browser: Browser, tmp_path: Path) -> None:
    # Lines that turn out to be something else when they go on.
    traps = "para\n#no heading\n- list\n\n  more\n\nend\n1. one\n2) two\n"
    traps += "a | b\n--|--x\na | b\n--|--\n1 | 2\n> q\n---\n**a*b** `x\n"
    written = "\n\n".join([part.text for part in PARTS] + [traps, "```py\nopen\n\n# not a heading"])
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        whole, differing = await demo.page.evaluate(GROW, [written, [5, 23]])
        assert differing == []
        _, differing = await demo.page.evaluate(GROW, [traps, list(range(1, 12))])
        assert differing == []
        for piece in (
            "<h4>A stream is a log that",
            "<em>stream</em>",
            '<li class="task">☑ Append only',
            "<blockquote>",
        ):
            assert piece in whole
        assert '<th class="end">about</th>' in whole
        assert "<table>" in whole
        assert "<strong>a*b</strong> `x" in whole


READ = """
async (what) => {
    const {readReply} = await import('/assets/reply.js');
    const objects = [];
    for await (const object of readReply(what, {url: new URL('/', location.href)})) objects.push(object);
    return objects;
}
"""


async def test_a_reply_of_an_earlier_server_is_read_from_its_beginning(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.open()
        info, *_ = await demo.chat.say("Go")
        stream_id = info["stream_id"]
        what = {"streamId": stream_id, "after": f"{stream_id}.AAAAAAAA.3"}
        objects = await demo.page.evaluate(READ, what)
        assert objects[0]["type"] == "reset"
        assert text(objects) == "one two three"
        assert objects[-1]["type"] == "complete"
        assert json.dumps(objects).count("reset") == 1


async def test_the_api_is_documented_without_a_script_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, options={"viewport": {"width": 360, "height": 640}}) as demo:
        await demo.page.goto(f"{demo.relay.url}/docs")
        await expect(demo.page.get_by_text("Reading openapi.json")).to_have_count(0)
        api = await demo.chat.get("/openapi.json")
        endpoints = [f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods]
        assert await demo.page.locator("#operations h3").all_inner_texts() == endpoints
        assert await demo.page.locator("#schemas h3").all_text_contents() == list(api["components"]["schemas"])
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        post = demo.page.locator("#operations section").first
        await expect(post.get_by_role("row", name="Idempotency-Key header")).to_be_visible()
        await expect(post.get_by_role("row", name="200 application/x-ndjson")).to_contain_text("SessionInfo or Status")
        await post.get_by_role("link", name="ChatRequest").click()
        await expect(demo.page.locator("#object-ChatRequest h3")).to_be_in_viewport()

        pasted = [await paste(line) for line in await post.locator("pre").all_text_contents()]
        lined, events, document = pasted
        assert text(lines(lined)) == "one two three"
        assert b"event: done" in events
        assert json.loads(document)["text"] == "one two three"


async def paste(line: str) -> bytes:
    """What a shell prints."""
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE / 1000):
        printed, _ = await shell.communicate()
    return printed

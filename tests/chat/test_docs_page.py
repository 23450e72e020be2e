"""The page of the API in headless Chromium: what it shows, and that each endpoint can be tried on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, expect

from tailrace.chat.models.base import ModelError
from tests.access import check_access
from tests.chat.api.talking import Hold, lines, text, within
from tests.chat.browsing import PATIENCE, Demo, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}

SAY = "POST /chat/stream"
DELETE = "DELETE /sessions/{session_id}"


class Docs:
    """The page of the API."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.page = demo.page
        self.asking = demo.page.get_by_role("dialog")

    async def open(self, fragment: str = "") -> None:
        await self.page.goto(f"{self.demo.relay.url}/docs{fragment}")
        await expect(self.page.get_by_text("Reading openapi.json")).to_have_count(0)

    def trying(self, heading: str) -> Form:
        return Form(self.page.get_by_role("form", name=f"Try {heading}", exact=True))


class Form:
    """The form of an endpoint, with its answer."""

    def __init__(self, root: Locator) -> None:
        self.root = root
        self.verdict = root.get_by_role("status")
        self.figures = root.locator(".figures")
        self.lines = root.locator("li.line code")
        self.facts = root.locator("li.fact")
        self.body = root.get_by_role("group", name="Body of the answer")
        self.command = root.get_by_role("group", name="The same request for a shell")

    def field(self, name: str) -> Locator:
        return self.root.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    async def send(self) -> None:
        await self.button("Send").click()

    async def ends(self, verdict: str | re.Pattern[str] = "Complete.") -> None:
        await expect(self.verdict).to_have_text(verdict)
        await expect(self.button("Send")).to_be_visible()

    async def objects(self) -> list[dict[str, Any]]:
        """The lines of NDJSON, as they are shown."""
        return [json.loads(line) for line in await self.lines.all_text_contents()]

    async def has(self, words: str) -> None:
        """Wait until the chunks are these words."""
        await expect(self.lines.filter(has_text=words.split(" ")[-1]).last).to_be_visible()
        assert text(await self.objects()) == words


@asynccontextmanager
async def reading(browser: Browser, folder: Path, *steps: Any, **site: Any) -> AsyncIterator[Docs]:
    async with visiting(browser, folder, *steps, **site) as demo:
        docs = Docs(demo)
        await docs.open()
        yield docs


# What is there


async def test_the_api_is_documented_without_a_script_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path, options=PHONE) as docs:
        api = await docs.demo.chat.get("/openapi.json")
        page = docs.page
        endpoints = [f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods]
        assert await page.locator("#operations h3").all_inner_texts() == endpoints
        assert await page.locator("#contents li").all_inner_texts() == [one.replace(" ", "\n", 1) for one in endpoints]
        assert await page.locator("#schemas h3").all_text_contents() == list(api["components"]["schemas"])
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        post = page.locator("#operations section").first
        await expect(post.get_by_role("row", name="200 application/x-ndjson")).to_contain_text("SessionInfo or Status")
        await expect(page.locator("#access")).to_be_hidden()
        await post.locator("form").get_by_role("link", name="ChatRequest").click()
        await expect(page.locator("#object-ChatRequest h3")).to_be_in_viewport()


async def test_a_link_leads_to_each_endpoint(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        heading = docs.page.get_by_role("heading", name=DELETE)
        await heading.get_by_role("link").click()
        await expect(heading).to_be_in_viewport()
        fragment = await docs.page.evaluate("location.hash")
        await docs.page.goto("about:blank")
        await docs.open(fragment)
        await expect(heading).to_be_in_viewport()


async def test_the_fields_are_those_of_the_document(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        form = docs.trying(SAY)
        assert json.loads(await form.field("Body").input_value()) == {
            "message": "What is a log?",
            "session_id": "abc123",
        }
        assert await form.field("Accept").locator("option").all_inner_texts() == [
            *("application/x-ndjson", "text/event-stream", "application/json")
        ]
        await expect(form.field("Idempotency-Key")).to_be_hidden()
        await form.root.get_by_text("5 optional fields").press("Enter")
        assert await form.field("html").locator("option").all_inner_texts() == ["not sent", "true", "false"]
        await expect(form.field("Idempotency-Key")).to_have_accessible_description(
            re.compile("A header, string. A req")
        )
        limit = docs.trying("GET /sessions").field("limit")
        await expect(limit).to_have_accessible_description(
            "In the query, integer. At least 1, at most 200, default 50."
        )


async def test_a_server_that_is_away_is_said_in_words(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path) as demo:
        await demo.page.route("**/openapi.json", lambda route: route.abort())
        await demo.page.goto(f"{demo.relay.url}/docs")
        await expect(demo.page.get_by_role("status").first).to_have_text(
            re.compile("^The API could not be read. .* Reload the page to try again.$")
        )


# Trying


async def test_each_endpoint_can_be_tried_as_it_is(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        api = await docs.demo.chat.get("/openapi.json")
        endpoints = [f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods]
        endless = "GET /sessions/changes"
        for endpoint in [endless, *[one for one in endpoints if one not in (endless, DELETE)], DELETE]:
            form = docs.trying(endpoint)
            await form.send()
            if "clear" in endpoint or endpoint == DELETE:
                await docs.asking.get_by_role("button", name="Delete").click()
            await expect(form.verdict).to_have_text("Receiving." if endpoint == endless else "Complete.")
            await expect(form.figures).to_contain_text("200 OK")
        changes = docs.trying(endless)
        await expect(changes.lines.last).to_contain_text('"change":"deleted"')
        await changes.button("Disconnect").click()
        await changes.ends("Disconnected. The stream goes on, and you can resume it.")


async def test_an_id_of_an_answer_fills_in_the_other_forms(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        rename = docs.trying("PATCH /sessions/{session_id}")
        await expect(rename.command).to_contain_text("/sessions/$SESSION_ID")
        await rename.send()
        assert await rename.field("session_id").evaluate("(field) => field.matches(':invalid')")
        await expect(rename.verdict).to_be_empty()
        shown = docs.trying("GET /sessions/{session_id}")
        await shown.field("session_id").fill("mine")
        say = docs.trying(SAY)
        await say.send()
        await say.ends()
        await expect(rename.field("session_id")).to_have_value("abc123")
        await expect(rename.command).to_contain_text("/sessions/abc123")
        await expect(shown.field("session_id")).to_have_value("mine")
        new = docs.trying("POST /sessions/new")
        await new.send()
        await new.ends()
        await expect(rename.field("session_id")).to_have_value(re.compile("^[0-9a-f-]{36}$"))


async def test_an_answer_has_its_status_headers_time_and_body(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        form = docs.trying("GET /sessions")
        await form.root.get_by_text("optional fields").click()
        await form.field("limit").fill("0")
        await form.send()
        await form.ends("Refused: Limit: Input should be greater than or equal to 1.")
        await expect(form.figures).to_have_text(re.compile("^Status422 .*First byte.*ms.*Complete.*ms.*Bytes[0-9]+$"))
        await form.field("limit").fill("7")
        await form.send()
        await form.ends()
        assert json.loads(await form.body.inner_text()) == {"sessions": [], "total": 0, "next": None}
        await form.root.get_by_text(re.compile(r"^\d+ headers$")).click()
        await expect(form.root.get_by_role("row", name="content-type application/json")).to_be_visible()


async def test_no_more_of_a_document_is_shown_than_one_can_read(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path, "x" * 150_000) as docs:
        form = docs.trying(SAY)
        await form.field("Accept").select_option("application/json")
        await form.send()
        await form.ends()
        assert len(await form.body.inner_text()) == 100_000
        await expect(form.root).to_contain_text("The first 100,000 characters are shown.")


async def test_what_deletes_asks_first(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        await docs.demo.chat.say("Go", "abc")
        form = docs.trying(DELETE)
        await form.field("session_id").fill("abc")
        await form.field("session_id").press("Enter")
        await expect(docs.asking).to_contain_text("DELETE /sessions/abc deletes messages. You cannot undo this.")
        await expect(docs.asking.get_by_role("button", name="Cancel")).to_be_focused()
        await docs.page.keyboard.press("Escape")
        await expect(docs.asking).to_be_hidden()
        await expect(form.verdict).to_be_empty()
        assert (await docs.demo.chat.get("/sessions/abc"))["message_count"] == 2
        await form.send()
        await docs.asking.get_by_role("button", name="Delete").click()
        await form.ends()
        await docs.demo.chat.get("/sessions/abc", 404)


async def test_a_title_is_never_read_as_html(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror='globalThis.hacked = 1'><script>hacked = 1</script>"
    async with reading(browser, tmp_path, evil) as docs:
        say = docs.trying(SAY)
        await say.field("Body").fill(json.dumps({"message": evil, "session_id": "abc"}))
        await say.send()
        await say.ends()
        sessions = docs.trying("GET /sessions")
        await sessions.send()
        await sessions.ends()
        await expect(sessions.body).to_contain_text(evil)
        await expect(say.lines.filter(has_text=evil).first).to_be_visible()
        assert await docs.page.evaluate("[document.images.length, globalThis.hacked ?? 0]") == [0, 0]


async def test_a_request_that_gets_no_response_says_so(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, hold) as docs:
        docs.demo.relay.refuse()
        docs.demo.relay.cut()
        form = docs.trying("GET /health")
        await form.send()
        await form.ends("No response from the server.")
        docs.demo.relay.refuse(False)
        say = docs.trying(SAY)
        await say.field("Accept").select_option("application/json")
        await say.send()
        await within(hold.reached)
        await expect(say.verdict).to_have_text("Sent. Waiting for the response.")
        await say.button("Cancel").click()
        await say.ends("Cancelled.")
        hold.release.set()


async def test_a_header_that_cannot_be_sent_is_said(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        form = docs.trying(SAY)
        await form.root.get_by_text("optional fields").click()
        await form.field("Idempotency-Key").fill("鍵")
        await form.send()
        await form.ends("A header can only have characters of ISO 8859-1.")
        assert docs.demo.model.asked == []


async def test_of_an_endless_document_the_beginning_is_read(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        endless = (
            "() => new Response(new ReadableStream({pull: (c) => c.enqueue(new Uint8Array(1_000_000).fill(120))}))"
        )
        await docs.page.evaluate(f"globalThis.fetch = {endless}")
        form = docs.trying("GET /health")
        await form.send()
        await form.ends()
        await expect(form.figures).to_contain_text("more than 4,000,000")


async def test_a_key_is_asked_for_where_there_are_keys(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path, key="secret") as docs:
        form = docs.trying("GET /sessions")
        await form.send()
        await form.ends(re.compile("^Refused: .* Save an API key at the top of this page, and send again.$"))
        await expect(form.command).to_contain_text('-H "Authorization: Bearer $KEY"')
        await expect(docs.page.get_by_text("This tab has no key yet.")).to_be_visible()
        await docs.page.get_by_label("API key", exact=True).fill("secret")
        await docs.page.keyboard.press("Enter")
        await expect(docs.page.get_by_text("Key saved in this tab.")).to_be_visible()
        await form.send()
        await form.ends()
        await docs.trying(SAY).send()
        await docs.trying(SAY).ends()
        assert "secret" not in await docs.page.locator("body").inner_text()
        # The chat page has the same key.
        await docs.demo.open()
        await docs.open()
        await expect(docs.page.get_by_text("This tab has a key.")).to_be_visible()


# Streams


@pytest.mark.parametrize("wire", ["application/x-ndjson", "text/event-stream"])
async def test_a_stream_arrives_piece_by_piece_and_is_stopped(browser: Browser, tmp_path: Path, wire: str) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, "one ", hold, "two") as docs:
        form = docs.trying(SAY)
        await form.field("Accept").select_option(wire)
        await form.send()
        await expect(form.lines.last).to_contain_text("one ")
        await expect(form.verdict).to_have_text("Receiving.")
        await within(hold.reached)
        # Enter in a field sends nothing while a stream runs, and stops nothing.
        await form.root.get_by_text("optional fields").click()
        await form.field("after").press("Enter")
        await expect(form.verdict).to_have_text("Receiving.")
        await form.button("Stop").press("Enter")
        await form.ends("Stopped.")
        await expect(form.facts).to_contain_text(["/stop answered {"])
        await expect(form.button("Send")).to_be_focused()
        assert docs.demo.model.closed == 1


async def test_a_stream_goes_on_after_a_cut(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, "one ", hold, "two ", "three") as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.has("one ")
        docs.demo.relay.refuse()
        docs.demo.relay.cut()
        await expect(form.verdict).to_have_text(re.compile(r"^Connection lost. Next attempt in \d+\.\d s.$"))
        docs.demo.relay.refuse(False)
        await expect(form.verdict).to_have_text("Receiving.")
        hold.release.set()
        await form.ends()
        await form.has("one two three")
        await expect(form.facts.first).to_contain_text("Next attempt in")
        assert len(docs.demo.model.asked) == 1


async def test_who_disconnects_can_resume(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, "one ", hold, "two") as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.has("one ")
        await form.button("Disconnect").press("Enter")
        await form.ends("Disconnected. The stream goes on, and you can resume it.")
        await docs.demo.chat.health(active_streams=1)
        await form.button("Resume").press("Enter")
        await expect(form.verdict).to_have_text("Receiving.")
        await expect(form.facts).to_contain_text(["Resumed after "])
        hold.release.set()
        await form.ends()
        await form.has("one two")
        assert len(docs.demo.model.asked) == 1


async def test_who_resumes_while_the_server_is_away_can_leave_again(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, "one ", hold, "two") as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.has("one ")
        await form.button("Disconnect").click()
        await form.ends(re.compile("^Disconnected"))
        docs.demo.relay.refuse()
        docs.demo.relay.cut()
        await form.button("Resume").click()
        await expect(form.verdict).to_have_text(re.compile("^Connection lost"))
        await expect(form.button("Send")).to_be_hidden()
        await form.button("Cancel").click()
        await form.ends(re.compile("^Disconnected"))
        docs.demo.relay.refuse(False)
        await form.button("Resume").click()
        hold.release.set()
        await form.ends()
        await form.has("one two")


async def test_a_stop_that_is_refused_says_so(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with reading(browser, tmp_path, "one ", hold, "two") as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.has("one ")
        refusal = {"status": 404, "json": {"detail": "no such stream", "code": "not_found"}}
        await docs.page.route("**/stop", lambda route: route.fulfill(**refusal))
        await form.button("Stop").click()
        await expect(form.verdict).to_have_text("The server refused with 404 (not_found): no such stream.")
        hold.release.set()
        await form.ends()
        await form.has("one two")


async def test_a_stream_that_fails_says_why(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path, "one", ModelError("the pump broke")) as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.ends(re.compile("^The stream failed: .*the pump broke"))
        await form.send()
        await form.ends(re.compile("^The stream failed: "))
        assert len(docs.demo.model.asked) == 2


async def test_of_a_long_stream_the_last_lines_are_kept(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path, *(f"w{n} " for n in range(700)), "x" * 5000) as docs:
        form = docs.trying(SAY)
        await form.send()
        await form.ends()
        await expect(form.root).to_contain_text(
            re.compile(r"The page keeps the last lines. \d+ earlier lines left out.")
        )
        assert await form.root.locator("ol > li").count() == 500
        await expect(form.lines.filter(has_text="xxx")).to_contain_text("more characters")
        rows = form.root.get_by_role("group", name="The stream")
        assert await rows.evaluate("(box) => box.scrollHeight - box.scrollTop - box.clientHeight") < 1


# Commands


async def test_a_command_does_what_the_form_does(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        form = docs.trying(SAY)
        message = 'It\'s $HOME `id` \\ "!" é\n@file'
        await form.field("Body").fill(json.dumps({"message": message}, ensure_ascii=False, indent=1))
        printed = []
        for wire in ("application/x-ndjson", "text/event-stream", "application/json"):
            await form.field("Accept").select_option(wire)
            printed.append(await paste(await form.command.inner_text()))
        lined, events, document = printed
        assert text(lines(lined)) == "one two three"
        assert b"event: done" in events
        assert json.loads(document)["text"] == "one two three"
        assert {asked[-1].text for asked in docs.demo.model.asked} == {message}

        await form.send()
        await form.ends()
        rename = docs.trying("PATCH /sessions/{session_id}")
        assert json.loads(await paste(await rename.command.inner_text()))["title"] == "Logs and cursors"
        sessions = docs.trying("GET /sessions")
        await sessions.root.get_by_text("optional fields").click()
        await sessions.field("q").fill("$HOME's `x`!&#")
        assert json.loads(await paste(await sessions.command.inner_text()))["sessions"] == []
        clear = docs.trying("POST /sessions/{session_id}/clear")
        assert json.loads(await paste(await clear.command.inner_text()))["message_count"] == 0


async def paste(line: str) -> bytes:
    """Return the output of a shell."""
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE / 1000):
        printed, _ = await shell.communicate()
    return printed


async def test_a_command_is_copied(browser: Browser, tmp_path: Path) -> None:
    allowed = {"permissions": ["clipboard-read", "clipboard-write"]}
    async with reading(browser, tmp_path, options=allowed) as docs:
        form = docs.trying("GET /health")
        await form.button("Copy").click()
        await expect(form.button("Copied")).to_be_visible()
        copied = await docs.page.evaluate("navigator.clipboard.readText()")
        assert copied == f'curl -s "{docs.demo.relay.url}/health"'
        await expect(form.button("Copy")).to_be_visible()
        # Over plain HTTP, browsers do not have the clipboard.
        await docs.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        await form.button("Copy").click()
        await expect(form.button("Selected")).to_be_visible()
        assert await docs.page.evaluate("getSelection().toString()") == copied


# For everyone


async def test_a_request_is_sent_from_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with reading(browser, tmp_path) as docs:
        form = docs.trying(SAY)
        await form.field("Body").press("Enter")
        await expect(form.verdict).to_be_empty()
        await form.field("Body").press("Control+Enter")
        await form.ends()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(browser: Browser, tmp_path: Path, scheme: str) -> None:
    async with reading(browser, tmp_path, key="secret", options={**PHONE, "color_scheme": scheme}) as docs:
        page = docs.page
        await check_access(page)
        form = docs.trying(SAY)
        await form.send()
        await form.ends(re.compile("^Refused"))
        await page.get_by_label("API key", exact=True).fill("secret")
        await page.get_by_role("button", name="Save key").click()
        await docs.trying(SAY).send()
        await form.ends()
        await docs.trying("GET /sessions").send()
        await docs.trying("GET /sessions").ends()
        await page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        await check_access(page)
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        await docs.trying(DELETE).send()
        await expect(docs.asking).to_be_visible()
        await check_access(page)

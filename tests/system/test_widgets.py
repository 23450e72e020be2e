"""Streaming forms in headless Chromium, as their users use them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import pytest_asyncio
from jinja2 import Environment
from markupsafe import Markup
from playwright.async_api import Browser, expect
from starlette.datastructures import URL

from tailrace import StreamError, get_streaming_html, get_streaming_js
from tests.access import check_access
from tests.chat.browsing import chromium
from tests.sources import Faucet, soon
from tests.system.forms import NONCE, Form, Stage, form, page_of, staged, visiting

CANCELLED = """\
id: WFR-OcVrzNIFK5T3gohsWQ.0.1
data: "one"

id: WFR-OcVrzNIFK5T3gohsWQ.0.1.end
event: cancelled
data: {"code":"shutdown","message":"the server stops"}

"""

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def test_an_answer_is_shown_as_it_arrives(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await expect(ask.send).to_be_enabled()
        await expect(ask.stop).to_be_hidden()
        await expect(ask.answer).to_be_hidden()
        await ask.ask("why not?")
        faucet.put("Because")
        await expect(ask.answer).to_have_text("Because")
        await expect(ask.status).to_have_text("Receiving the answer…")
        await expect(ask.answer).to_have_attribute("aria-busy", "true")
        await expect(ask.root).to_have_attribute("data-state", "receiving")
        faucet.put(" <b>\n  it", b" is", 7, {"a": [None]}, b"\xff")
        faucet.end()
        await expect(ask.status).to_have_text("Complete.")
        assert await ask.answer.inner_text() == 'Because <b>\n  it is7\n{"a":[null]}\n\ufffd'
        await expect(ask.answer).to_have_attribute("aria-busy", "false")
        await expect(ask.stop).to_be_hidden()
        assert stage.messages == ["why not?"]


async def test_another_answer_replaces_the_first(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        for word in ("one", "two"):
            stage.faucets["/ask"] = Faucet([word])
            stage.faucets["/ask"].end()
            await ask.ask("same")
            await expect(ask.answer).to_have_text(word)
            await expect(ask.status).to_have_text("Complete.")
        stage.faucets["/ask"] = Faucet()
        stage.faucets["/ask"].end()
        await ask.ask("same")
        await expect(ask.status).to_have_text("Complete. The answer is empty.")
        await expect(ask.answer).to_be_hidden()


async def test_two_forms_on_a_page_stream_at_the_same_time(browser: Browser, stage: Stage) -> None:
    stage.html = page_of(form("ask", "Ask"), form("tell", "Tell", "/tell"))
    async with visiting(browser, stage) as page:
        ask, tell = Form(page, "#ask"), Form(page, "#tell")
        await ask.ask("a")
        await tell.ask("b")
        for word in ("1", "2"):
            stage.faucets["/tell"].put(f"b{word}")
            await expect(tell.answer).to_have_text(re.compile(f"b{word}$"))
            stage.faucets["/ask"].put(f"a{word}")
            await expect(ask.answer).to_have_text(re.compile(f"a{word}$"))
        await tell.stop.click()
        await expect(tell.status).to_have_text("Stopped. The answer is incomplete.")
        await expect(ask.status).to_have_text("Receiving the answer…")
        stage.faucets["/ask"].end()
        await expect(ask.status).to_have_text("Complete.")
        assert (await ask.answer.inner_text(), await tell.answer.inner_text()) == ("a1a2", "b1b2")


async def test_an_answer_survives_a_lost_connection(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await ask.ask()
        faucet.put("one ")
        await expect(ask.answer).to_have_text("one ")
        stage.relay.refuse()
        stage.relay.cut()
        await expect(ask.status).to_have_text("Connection lost. Reconnecting…")
        await expect(ask.root).to_have_attribute("data-state", "waiting")
        faucet.put("two ")
        stage.relay.refuse(False)
        await expect(ask.answer).to_have_text("one two ")
        await expect(ask.status).to_have_text("Receiving the answer…")
        faucet.end()
        await expect(ask.status).to_have_text("Complete.")
        assert len(stage.messages) == 1


async def test_an_answer_that_the_server_has_lost_is_a_failure(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await ask.ask()
        stage.faucets["/ask"].put("one ")
        await expect(ask.answer).to_have_text("one ")
        await page.route("**/ask/*", lambda route: route.fulfill(status=404, json={"detail": "no such stream"}))
        stage.relay.cut()
        await expect(ask.status).to_have_text("Failed: the server no longer has this answer. The answer is incomplete.")
        await expect(ask.answer).to_have_text("one ")


async def test_an_answer_survives_a_reload(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await ask.ask("why?")
        faucet.put("one ")
        await expect(ask.answer).to_have_text("one ")
        for word in ("two ", "three "):
            faucet.put(word)
            await page.goto(stage.relay.url)
            await expect(ask.answer).to_have_text(re.compile(word))
        assert await ask.answer.inner_text() == "one two three "
        await expect(ask.field).to_have_value("why?")
        faucet.end()
        await expect(ask.status).to_have_text("Complete.")
        await page.reload()
        await expect(ask.root).to_have_attribute("data-state", "idle")
        assert len(stage.messages) == 1


async def test_an_answer_that_is_gone_after_a_reload_is_a_failure(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await ask.ask("why?")
        stage.faucets["/ask"].put("one ")
        await expect(ask.answer).to_have_text("one ")
        await page.evaluate(
            """() => {
                for (const [name, value] of Object.entries(sessionStorage)) {
                    const place = JSON.parse(value);
                    place.address = place.address.replace(/[^/]+$/, 'AAAAAAAAAAAAAAAAAAAAAA');
                    sessionStorage.setItem(name, JSON.stringify(place));
                }
            }"""
        )
        await page.reload()
        await expect(ask.status).to_have_text("Failed: the server no longer has this answer.")
        await expect(ask.root).to_have_attribute("data-state", "failed")
        await page.reload()
        await expect(ask.root).to_have_attribute("data-state", "idle")


async def test_what_others_keep_in_its_place_is_ignored(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await ask.ask("why?")
        stage.faucets["/ask"].put("one ")
        await expect(ask.answer).to_have_text("one ")
        [name] = await page.evaluate("Object.keys(sessionStorage)")
        for kept in ("5", "null", "{}", '{"address": 5, "message": "a"}', '{"address": "data:1", "message": "a"}'):
            await page.evaluate("([name, kept]) => sessionStorage.setItem(name, kept)", [name, kept])
            await page.reload()
            await expect(ask.send).to_be_enabled()
            await expect(ask.root).to_have_attribute("data-state", "idle")
            await expect(ask.field).to_have_value("")


async def test_stop_ends_the_generator(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await ask.ask()
        faucet.put("one ")
        await expect(ask.answer).to_have_text("one ")
        async with page.expect_response(lambda response: response.url.endswith("/stop")) as stopped:
            await ask.stop.focus()
            await ask.stop.press("Enter")
        assert (await (await stopped.value).json())["state"] == "cancelled"
        await expect(ask.status).to_have_text("Stopped. The answer is incomplete.")
        await expect(ask.root).to_have_attribute("data-state", "stopped")
        await expect(ask.field).to_be_focused()
        await soon(faucet.closed)


async def test_stop_works_while_answers_take_all_connections_of_the_browser(browser: Browser, stage: Stage) -> None:
    stage.html = page_of(*(form(f"ask{number}") for number in range(6)))
    async with visiting(browser, stage) as page:
        asks = [Form(page, f"#ask{number}") for number in range(6)]
        for ask in asks:
            stage.faucets["/ask"] = faucet = Faucet(["one "])
            await ask.ask()
            await expect(ask.answer).to_have_text("one ")
        await asks[-1].stop.click()
        await expect(asks[-1].status).to_have_text("Stopped. The answer is incomplete.")
        await soon(faucet.closed)
        await expect(asks[0].status).to_have_text("Receiving the answer…")


async def test_a_stop_before_the_answer_has_begun_stops_it_too(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await ask.ask()
        await ask.stop.click()
        await expect(ask.status).to_have_text("Stopped.")
        await soon(faucet.closed)


async def test_a_stop_that_the_server_does_not_confirm_is_not_called_one(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await ask.ask()
        stage.faucets["/ask"].put("one ")
        await expect(ask.answer).to_have_text("one ")
        stage.relay.refuse()
        stage.relay.cut()
        await ask.stop.click()
        await expect(ask.status).to_have_text("Stopping… To stop waiting for the server, press Stop again.")
        await ask.stop.click()
        await expect(ask.status).to_have_text("Stopped. The server has not confirmed it. The answer is incomplete.")
        stage.relay.refuse(False)


async def test_an_endpoint_without_a_stop_says_so(browser: Browser, stage: Stage) -> None:
    stage.html = page_of(form(endpoint="/plain"))
    async with visiting(browser, stage) as page:
        ask, faucet = Form(page), stage.faucets["/ask"]
        await ask.ask()
        faucet.put("one ")
        await expect(ask.answer).to_have_text("one ")
        await ask.stop.click()
        await expect(ask.status).to_have_text(
            "Stopped. The server may continue: it offers no way to stop. The answer is incomplete."
        )
        await soon(faucet.closed)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([StreamError("the pump broke")], "Failed: the pump broke."),
        (["one ", StreamError("the pump broke!")], "Failed: the pump broke! The answer is incomplete."),
        (["one ", ValueError("secret")], "Failed: Internal Server Error. The answer is incomplete."),
    ],
)
async def test_a_failure_is_told_in_words(browser: Browser, stage: Stage, pieces: list[object], said: str) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        stage.faucets["/ask"].put(*pieces)
        await ask.ask()
        await expect(ask.status).to_have_text(said)
        await expect(ask.root).to_have_attribute("data-state", "failed")
        await expect(ask.stop).to_be_hidden()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 403, "json": {"detail": "Not <you>"}}, "Failed: Not <you>."),
        (
            {"status": 422, "json": {"detail": [{"msg": "too long", "loc": ["body", "message"]}]}},
            "Failed: body.message: too long.",
        ),
        ({"status": 418, "body": ""}, "Failed: the server refused with status 418."),
        ({"content_type": "image/png", "body": ""}, "Failed: expected a stream"),
        (
            {
                "headers": {"Content-Type": "text/event-stream", "Tailrace-Cursor": "WFR-OcVrzNIFK5T3gohsWQ.0.0"},
                "body": CANCELLED,
            },
            "Interrupted: the server stops. The answer is incomplete.",
        ),
    ],
)
async def test_a_refusal_is_told_in_words(browser: Browser, stage: Stage, answer: dict[str, Any], said: str) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await page.route("**/ask", lambda route: route.fulfill(**answer))
        await ask.ask()
        await expect(ask.status).to_contain_text(said)
        await expect(ask.root).to_have_attribute("data-state", "failed")


async def test_another_server_s_stream_is_complete_if_its_body_is(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await page.route("**/ask", lambda route: route.fulfill(content_type="text/event-stream", body="data: one\n\n"))
        await ask.ask()
        await expect(ask.status).to_have_text("Complete.")
        await expect(ask.answer).to_have_text("one")


async def test_a_server_that_is_away_is_a_failure(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await expect(ask.root).to_have_attribute("data-state", "idle")
        stage.relay.refuse()
        stage.relay.cut()
        await ask.ask()
        await expect(ask.status).to_contain_text("Failed: ")
        await expect(ask.root).to_have_attribute("data-state", "failed")
        stage.relay.refuse(False)
        await ask.send.click()
        stage.faucets["/ask"].put("one")
        await expect(ask.answer).to_have_text("one")


async def test_a_form_works_without_storage(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        await page.add_init_script(
            "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no'); } })"
        )
        await page.reload()
        ask = Form(page)
        await ask.ask()
        stage.faucets["/ask"].put("one")
        stage.faucets["/ask"].end()
        await expect(ask.status).to_have_text("Complete.")
        await expect(ask.answer).to_have_text("one")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(browser: Browser, stage: Stage, scheme: str) -> None:
    stage.html = page_of(form("ask", "Ask"), form("tell", "Ask", "/tell"))
    async with visiting(browser, stage, color_scheme=scheme, viewport={"width": 320, "height": 640}) as page:
        ask, tell = Form(page), Form(page, "#tell")
        await check_access(page)
        stage.faucets["/tell"].put(StreamError("the pump broke"))
        await tell.ask()
        await expect(tell.root).to_have_attribute("data-state", "failed")
        await ask.ask()
        stage.faucets["/ask"].put("one " * 100)
        await expect(ask.answer).to_contain_text("one one")
        await check_access(page)
        stage.faucets["/ask"].end()
        await expect(ask.status).to_have_text("Complete.")
        await check_access(page)
        assert await page.evaluate("document.documentElement.scrollWidth") == 320


IDS = [
    *("a b", 'a"b', "a'b", "a\\", "a&lt;b&", "${a}`", "<!--", "]]>", "-->", "é🜁", "a\rb\r\nc\t", "a\u2028b", " ", "0"),
    '"><script>globalThis.hacked = 1</script>',
    "</script><script>globalThis.hacked = 1</script>",
    '");globalThis.hacked = 1;("',
]


async def test_any_id_and_label_and_endpoint_are_what_they_are(browser: Browser, stage: Stage) -> None:
    stage.html = page_of(*(form(text, f"Label {text}", f"/ask?q={text}") for text in IDS))
    async with visiting(browser, stage) as page:
        await expect(page.locator("form[data-state=idle]")).to_have_count(len(IDS))
        for number, text in enumerate(IDS):
            ask = Form(page, f"form >> nth={number}")
            assert await ask.root.get_attribute("id") == text
            assert await ask.field.evaluate("(field) => field.labels[0].firstChild.data") == f"Label {spelled(text)}\n"
            stage.faucets["/ask"] = faucet = Faucet([text])
            faucet.end()
            async with page.expect_request(lambda request: "/ask?" in request.url) as sent:
                await ask.ask(text + "!")
            query = urlsplit((await sent.value).url).query
            await expect(ask.status).to_have_text("Complete.")
            assert await ask.answer.text_content() == text
            # A URL has no line ends and no tabs, and no spaces at its end.
            kept = re.sub("[\t\r\n]|^ $", "", text)
            assert unquote(query) == f"q={kept}"
        assert [message.rstrip("!") for message in stage.messages] == [spelled(text) for text in IDS]


def spelled(text: str) -> str:
    """Return a text as HTML and a field have it."""
    return re.sub("\r\n|\r", "\n", text)


async def test_several_lines_are_written_with_shift(browser: Browser, stage: Stage) -> None:
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await page.keyboard.press("Tab")
        await expect(ask.field).to_be_focused()
        await page.keyboard.press("Enter")
        assert stage.messages == []  # an empty message is not sent
        await page.keyboard.type("one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await ask.field.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
        await page.keyboard.press("Enter")
        stage.faucets["/ask"].put("1")
        await expect(ask.answer).to_have_text("1")
        await page.keyboard.press("Enter")
        await expect(ask.status).to_have_text("An answer is still arriving. Stop it before you send another message.")
        for button in (ask.send, ask.stop):
            await page.keyboard.press("Tab")
            await expect(button).to_be_focused()
        await expect(ask.send).to_have_attribute("aria-disabled", "true")
        stage.faucets["/ask"].end()
        await expect(ask.status).to_have_text("Complete.")
        await expect(ask.field).to_be_focused()
        await expect(ask.send).to_have_attribute("aria-disabled", "false")
        assert stage.messages == ["one\ntwo"]


OWN = """
<div style="display: grid; grid-template-columns: 1fr 1fr">
  <form id="ask" enctype="multipart/form-data"><fieldset><legend>Own</legend>
    <input name="message" aria-label="Message"><input type="hidden" name="more" value="x"><button>Go</button>
  </fieldset></form>
  <section><output form="ask" name="status" role="status"></output>
    <button form="ask" name="stop" type="button">Halt</button>
    <p><output form="ask" name="answer" class="own"></output></p></section>
</div>
"""


async def test_a_form_of_your_own_may_have_its_parts_anywhere(browser: Browser, stage: Stage) -> None:
    stage.policy = stage.policy.replace("default-src", "style-src 'unsafe-inline'; default-src")
    stage.html = page_of(OWN, get_streaming_js("ask", "/ask", nonce=NONCE), style=".own { white-space: normal }")
    async with visiting(browser, stage) as page:
        await expect(page.locator("#ask")).to_have_attribute("data-state", "idle")
        await expect(page.get_by_role("button", name="Halt")).to_be_hidden()
        await page.get_by_label("Message").fill("hi")
        async with page.expect_request("**/ask") as sent:
            await page.get_by_role("button", name="Go").click()
        assert 'name="more"' in ((await sent.value).post_data or "")
        stage.faucets["/ask"].put("a\nb")
        answer = page.locator(".own")
        await expect(answer).to_have_text("a b")
        assert await answer.evaluate("(answer) => getComputedStyle(answer).whiteSpace") == "normal"
        await page.get_by_role("button", name="Halt").click()
        await expect(page.get_by_role("status")).to_have_text("Stopped. The answer is incomplete.")
        await expect(page.locator("form output, form button")).to_have_count(1)


async def test_a_bare_form_gets_what_it_lacks(browser: Browser, stage: Stage) -> None:
    bare = '<form id="ask"><label>Message <input name="message"></label><button>Send</button></form>'
    stage.html = page_of(bare, get_streaming_js("ask", "/ask", nonce=NONCE))
    async with visiting(browser, stage) as page:
        ask = Form(page)
        await ask.ask("hi")
        stage.faucets["/ask"].put("one\n two")
        await expect(ask.answer).to_have_text("one two")
        assert await ask.answer.inner_text() == "one\n two"
        await ask.stop.click()
        await expect(ask.status).to_have_text("Stopped. The answer is incomplete.")


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("", 'expected a form with the id "ask", but got nothing'),
        ('<p id="ask">', 'expected a form with the id "ask", but got p'),
        (
            '<form id="ask"><select name="message"></select></form>',
            'expected the form "ask" to have one field named message',
        ),
    ],
)
async def test_a_page_without_the_form_says_so_to_its_author(
    browser: Browser, stage: Stage, html: str, said: str
) -> None:
    stage.html = page_of(html, get_streaming_js("ask", "/ask", nonce=NONCE))
    page = await browser.new_page()
    async with page.expect_event("pageerror") as raised:
        await page.goto(stage.relay.url)
    assert (await raised.value).message == said
    await page.close()


async def test_a_form_in_a_template(browser: Browser, stage: Stage) -> None:
    template = Environment(autoescape=True).from_string(
        page_of("{{ html('ask', label) | safe }}{{ script('ask', url, nonce=nonce) | safe }}")
    )
    template.globals.update(html=get_streaming_html, script=get_streaming_js)
    stage.html = template.render(label=Markup("<b>Ask</b>"), url=URL("/ask"), nonce=NONCE)
    async with visiting(browser, stage) as page:
        await page.get_by_label("<b>Ask</b>").fill("hi")
        await page.get_by_role("button", name="Send").click()
        stage.faucets["/ask"].put("one")
        await expect(Form(page).answer).to_have_text("one")

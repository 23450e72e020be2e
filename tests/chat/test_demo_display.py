"""The chat page's looks: rendered Markdown, hostile texts, long replies, phones, and accessibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, CDPSession, Route, expect

from tailrace.chat.models.base import ModelError
from tests.chat.api.talking import Hold
from tests.chat.browsing import Demo, serving_site, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark", "has_touch": True}

CODE = "```python\ndef f(x):\n    return 'one'  # why\n```\n\n"
TABLE = "| name | what it is for |\n|---|---|\n| log | order |\n\n"


async def test_markdown_is_shown_as_it_arrives_and_the_same_after_a_reload(browser: Browser, tmp_path: Path) -> None:
    pieces = [
        "# A ti",
        "tle\n\nSome **bo",
        "ld** text, `co",
        "de`.\n\n",
        "- [x] one\n- t",
        "wo\n\n",
        CODE,
        TABLE,
        "> quo",
        "ted\n",
    ]
    async with visiting(browser, tmp_path, *pieces) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        reply = demo.replies
        await expect(reply.get_by_role("heading", name="A title")).to_be_visible()
        await expect(reply.locator("strong")).to_have_text("bold")
        await expect(reply.locator("li")).to_have_text(["☑ one", "two"])
        await expect(reply.locator("blockquote")).to_have_text("quoted")
        await expect(reply.locator(".lang")).to_have_text("python")
        await expect(reply.locator(".code .k, .code .kd").first).to_have_text("def")
        await expect(reply.get_by_role("cell", name="order")).to_be_visible()
        shown = await reply.inner_html()
        await demo.open(demo.session_id)
        await expect(reply.locator("blockquote")).to_have_text("quoted")
        assert await reply.inner_html() == shown


async def test_a_fence_just_opened_shows_nothing_until_it_has_text(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    async with visiting(browser, tmp_path, "Look:\n\n", "```py\n", hold, "x = 1\n```\n") as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.outcomes).to_contain_text("2 chunks")
        await expect(demo.replies).to_have_text("Look:")
        await expect(demo.replies.locator(".bar:visible")).to_have_count(0)
        hold.release.set()
        await demo.ends()
        await expect(demo.replies.locator(".bar")).to_be_visible()


async def test_text_without_a_renderer_is_plain(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "# One\n", "**two**\n\n", "three") as demo:

        async def ask_for_text(route: Route) -> None:
            await route.continue_(url=route.request.url.replace("html=true", "html=false"))

        await demo.page.route("**/*html=true*", ask_for_text)
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        await expect(demo.replies).to_have_text("# One\n**two**\n\nthree", use_inner_text=True)
        await demo.open(demo.session_id)
        await expect(demo.replies).to_have_text("# One\n**two**\n\nthree", use_inner_text=True)


async def test_the_script_of_a_model_never_runs(browser: Browser, tmp_path: Path) -> None:
    evil = [
        "<img src=x onerror=document.title='bad'> <script>document.title='bad'</script>\n\n",
        "<svg onload=document.title='bad'><iframe srcdoc='<script>parent.document.title=1</script>'></iframe>\n\n",
        "[tempting](javascript:document.title='bad') [data](data:text/html,bad) ![pixel](https://example.org/p.png)\n\n",
        '<a href="https://example.org" onclick="document.title=1" style="position:fixed">link</a>\n\n',
        "# <b>bold</b>\n\n| <i>a</i> |\n|---|\n| `<u>` |\n\n```<svg>\n</code></pre><script>\n```\n",
    ]
    async with visiting(browser, tmp_path, *evil) as demo:
        await demo.open()
        await demo.say("<b>Mine</b>")
        await demo.ends()
        await expect(demo.said).to_have_text("<b>Mine</b>")
        await demo.chat.say("<img src=x onerror=document.title='bad'>")
        await expect(demo.link("<img src=x onerror")).to_be_visible()
        for _ in range(2):
            found = await demo.replies.evaluate(
                """(reply) => [...reply.querySelectorAll(
                    'img, script, svg:not(.icon), iframe, style, [style], [onclick]'
                )].map((one) => one.outerHTML)"""
            )
            assert found == []
            for link in await demo.replies.locator("a").all():
                assert (await link.get_attribute("href") or "").startswith("https://example.org")
                assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
            await expect(demo.replies).to_contain_text("</code></pre><script>")
            await expect(demo.page).to_have_title("<b>Mine</b> – tailrace chat")
            await demo.open(demo.session_id)
            await expect(demo.replies.locator(".code")).to_be_visible()


async def test_only_sanitised_blocks_become_html(browser: Browser, tmp_path: Path) -> None:
    """Trusted Types refuse any other use of innerHTML."""
    async with serving_site(tmp_path) as site:
        page = await browser.new_page()
        await page.goto(f"{site.relay.url}/demo")
        for use in ("document.body.innerHTML = '<b>x</b>'", "trustedTypes.createPolicy('another', {})"):
            name = await page.evaluate(f"() => {{ try {{ {use}; }} catch (error) {{ return error.name; }} }}")
            assert name == "TypeError"
        await page.close()


async def test_arabic_is_laid_out_from_right_to_left(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, "مرحبا بالعالم\n\n", "English\n\n- واحد\n") as demo:
        await demo.open()
        await demo.say("سلام")
        await demo.ends()
        direction = "(one) => getComputedStyle(one).direction"
        assert await demo.said.evaluate(direction) == "rtl"
        for place, wanted in (("p >> nth=0", "rtl"), ("p >> nth=1", "ltr"), ("li", "rtl"), ("li p", "rtl")):
            assert await demo.replies.locator(place).evaluate(direction) == wanted
        await demo.field.fill("سلام")
        assert await demo.field.evaluate(direction) == "rtl"


async def test_only_those_at_the_end_are_taken_along(browser: Browser, tmp_path: Path) -> None:
    hold = Hold()
    long = "A line.\n\n" * 60
    async with visiting(browser, tmp_path, long, hold, long, options=PHONE) as demo:
        await demo.open()
        await demo.say("Go")
        await expect(demo.replies.locator("p")).to_have_count(60)
        await expect(demo.replies.locator("p").last).to_be_in_viewport()
        await demo.page.get_by_label("Conversation").press("Home")
        await expect(demo.said).to_be_in_viewport()
        hold.release.set()
        await demo.ends()
        await expect(demo.said).to_be_in_viewport()
        await demo.button("Jump to latest").click()
        await expect(demo.outcomes.last).to_be_in_viewport()
        await expect(demo.button("Jump to latest")).to_be_hidden()
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360


async def test_a_wide_table_is_scrolled_in_its_own_box(browser: Browser, tmp_path: Path) -> None:
    wide = "| " + " | ".join(f"column {number}" for number in range(9)) + " |\n" + "|---" * 9 + "|\n"
    wide += "| " + " | ".join(["some words that could be broken"] * 8) + " | end |\n\n"
    async with visiting(browser, tmp_path, wide, options=PHONE) as demo:
        await demo.open()
        await demo.say("Go")
        await demo.ends()
        table = demo.page.get_by_role("region", name="Table")
        assert await table.evaluate("(box) => box.scrollWidth > box.clientWidth && box.clientWidth <= 328")
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        widths = await table.locator("td").evaluate_all("(cells) => cells.map((cell) => cell.offsetWidth)")
        assert min(widths) >= 96
        # A shade stays at the edge while the content below it moves.
        drawn = await table.evaluate("(box) => getComputedStyle(box).backgroundAttachment")
        assert drawn.startswith("local, local, scroll, scroll")
        await table.focus()
        await demo.page.keyboard.press("End")
        for _ in range(60):
            await demo.page.keyboard.press("ArrowRight")
        await expect(table.get_by_role("cell", name="end", exact=True)).to_be_in_viewport()


async def test_sessions_on_a_phone_are_a_sheet_as_high_as_the_screen(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, options=PHONE) as demo:
        await demo.chat.say("First")
        await demo.open()
        sheet = demo.page.get_by_role("navigation", name="Sessions")
        await expect(sheet).to_be_hidden()
        await demo.button("Sessions").press("Enter")
        await expect(demo.link("First")).to_be_visible()
        assert await sheet.bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 640}
        await expect(demo.button("Close sessions")).to_be_focused()
        await expect(demo.page.locator("#chat")).to_have_attribute("inert", "")
        await demo.page.keyboard.press("Escape")
        await expect(sheet).to_be_hidden()
        await expect(demo.button("Sessions")).to_be_focused()
        await demo.button("Sessions").click()
        await demo.link("First").click()
        await expect(sheet).to_be_hidden()
        await expect(demo.said).to_have_text("First")
        await expect(demo.button("Sessions")).to_be_focused()  # the field would bring up the keyboard on the screen


SMALL = """
() => [...document.querySelectorAll('button, input, textarea, nav a, header a')]
    .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.closest('.unseen'))
    .map((one) => [one.textContent.trim() || one.id, one.getBoundingClientRect()])
    .filter(([, box]) => box.width > 0 && (box.height < 44 || box.width < 44))
    .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)
"""


async def test_fingers_find_large_targets(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, CODE, TABLE, ModelError("it broke"), options=PHONE) as demo:
        await demo.open()
        assert await demo.page.evaluate(SMALL) == []
        await demo.say("Go")
        await demo.ends("Failed")
        assert await demo.page.evaluate(SMALL) == []
        await demo.button("Edit").click()
        assert await demo.page.evaluate(SMALL) == []
        await demo.button("Protocol").click()
        assert await demo.page.evaluate(SMALL) == []
        await demo.button("Close the protocol panel").click()
        await demo.button("Sessions").click()
        assert await demo.page.evaluate(SMALL) == []
        await demo.button("More for “Go”").click()
        assert await demo.page.evaluate(SMALL) == []


LONG_TASKS = """
window.long = [];
new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)))
    .observe({type: 'longtask'});
"""


def long_reply(size: int) -> list[str]:
    """Markdown of about this many characters, in pieces."""
    part = (
        f"## A part\n\n{'Some words of a paragraph with `code` and **weight**. ' * 8}\n\n- one\n- two\n\n{CODE}{TABLE}"
    )
    whole = part * (size // len(part) + 1)
    return [whole[start : start + 200] for start in range(0, len(whole), 200)]


async def test_200_kilobytes_of_markdown_do_not_jank(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, *long_reply(200_000)) as demo:
        await demo.page.add_init_script(LONG_TASKS)
        browsing = await demo.page.context.new_cdp_session(demo.page)
        # Other processes lengthen a task, but not its time on the processor.
        await browsing.send("Performance.enable", {"timeDomain": "threadTicks"})
        await demo.open()
        await demo.say("Go")
        await expect(demo.outcomes).to_contain_text("Complete", timeout=60_000)
        await judge(browsing, demo, "written")
        await demo.page.reload()
        await expect(demo.outcomes).to_contain_text("Complete", timeout=60_000)
        await judge(browsing, demo, "read")


async def judge(browsing: CDPSession, demo: Demo, what: str) -> None:
    """Check the long tasks since the page was loaded, and the time that its main thread has used."""
    metrics = await browsing.send("Performance.getMetrics")
    used = sum(float(one["value"]) for one in metrics["metrics"] if one["name"] == "TaskDuration")
    tasks = await demo.page.evaluate("long")
    longest = max(tasks, default=0)
    print(f"200 KB {what}: {used:.2f} s of the processor, {len(tasks)} long tasks, the longest {longest:.0f} ms")
    # Two seconds are usual, and seven beside other tests on a slow machine. The bounds catch a cost that is quadratic.
    assert used < 20
    assert longest < 3000

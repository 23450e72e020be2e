"""The dashboard of mission control with the application behind it, driven in headless Chromium as a user would."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, WebSocketRoute, expect

from tailrace.pages import CLIENT, SHARED
from tailrace.rover.app import PAGES
from tailrace.rover.telemetry import PATH
from tailrace.testing import Fault
from tests.access import check_access
from tests.chat.browsing import chromium
from tests.rover.browsing import Site, paint, serving_site, visit

# One browser for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE = "Panorama from the rover’s mast camera"

PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image is drawn once for all tests."""
    return paint(tmp_path_factory.mktemp("rover") / "panorama.jpg")


@pytest_asyncio.fixture(loop_scope="module")
async def site(image: Path) -> AsyncIterator[Site]:
    async with serving_site(image) as site:
        yield site


# The image


async def test_an_image_arrives_visibly_and_goes_on_after_a_pause(browser: Browser, site: Site) -> None:
    await site.settle()
    size = site.image.stat().st_size
    async with visit(browser, site, limit=50_000) as board:
        await board.page.goto(site.relay.url)
        await expect(board.image).to_have_text(re.compile(r"^Loading [1-9]\d? %$"))
        await expect(board.picture).to_have_attribute("alt", re.compile(r"camera, \d+ % received$"))
        figures = board.page.locator("#figures")
        await expect(figures).to_have_text(re.compile(r"^\d+ kB of \d+ kB · \d+ kB/s · \d\.\d s · [\d.]+ s left$"))
        await board.button("Pause").click()
        await expect(board.image).to_have_text(re.compile(r"^Paused at \d+ %$"))
        await board.page.get_by_label("Limit").select_option("none")
        await board.button("Resume").press("Enter")
        await expect(board.image).to_have_text("Complete")
        await expect(board.picture).to_have_attribute("alt", WHOLE)
        assert await board.picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [3200, 800]
        *_, first, rest = site.parts()
        assert first is None
        start = re.fullmatch(r"bytes=(\d+)-", rest or "")
        assert start is not None
        assert 0 < int(start[1]) < size
        await board.button("Refresh").click()
        await expect(board.image).to_have_text("Complete, still the newest")
        await expect(board.page.locator("#figures")).to_have_text(re.compile(r"^\d+ kB · "))


KEEP = """
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => make(window.shown = blob);
"""

DIGEST = """
async () => [...new Uint8Array(await crypto.subtle.digest('SHA-256', await shown.arrayBuffer()))]
"""


async def test_an_image_goes_on_after_a_lost_connection(browser: Browser, site: Site) -> None:
    await site.settle()
    async with visit(browser, site) as board:
        await board.page.add_init_script(KEEP)
        site.relay.always(Fault(piece=8_192, delay=0.03))
        await board.page.goto(site.relay.url)
        await expect(board.image).to_have_text(re.compile(r"^Loading [1-9]\d? %$"))
        site.relay.refuse()
        site.relay.cut()
        await expect(board.image).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
        await expect(board.happened).to_have_text("The connection was lost. What arrived is kept.")
        site.relay.refuse(False)
        await board.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(board.image).to_have_text("Complete")
        await expect(board.happened).to_be_hidden()
        assert [part is not None for part in site.parts()][-2:] == [False, True]
        assert await board.page.evaluate(DIGEST) == [*hashlib.sha256(site.image.read_bytes()).digest()]


async def test_an_image_that_changed_on_the_server_begins_anew(browser: Browser, tmp_path: Path) -> None:
    async with serving_site(paint(tmp_path / "image.jpg")) as site, visit(browser, site, limit=50_000) as board:
        await board.page.goto(site.relay.url)
        await expect(board.image).to_have_text(re.compile(r"^Loading [1-9]\d? %$"))
        await board.button("Pause").click()
        paint(site.image, width=1_600, height=400)
        await board.button("Resume").click()
        await expect(board.happened).to_have_text("The image changed on the server, so the download starts again.")
        await board.page.get_by_label("Limit").select_option("none")
        await expect(board.picture).to_have_attribute("alt", WHOLE)
        assert await board.picture.evaluate("(image) => image.naturalWidth") == 1600


async def test_an_image_that_is_not_there_says_so(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.page.route("**/stream/rover-image", lambda route: route.fulfill(status=404))
        await board.page.goto(site.relay.url)
        await expect(board.image).to_have_text("Failed")
        await expect(board.happened).to_have_text("Not loaded: the server answered with status 404.")
        await board.page.unroute("**/stream/rover-image")
        await board.button("Try again").click()
        await expect(board.image).to_have_text("Complete")


async def test_an_image_is_enlarged_and_moved_by_keys_and_pointer(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await expect(board.picture).to_have_attribute("alt", WHOLE)
        viewer, scale = board.page.locator("#viewer"), board.page.locator("#scale")
        fitting = await scale.text_content()

        async def left() -> float:
            box = await board.picture.bounding_box()
            assert box is not None
            return box["x"]

        await viewer.focus()
        await board.page.keyboard.press("1")
        await expect(scale).to_have_text("100 %")
        before = await left()
        await board.page.keyboard.press("ArrowRight")
        assert await left() < before
        before = await left()
        await viewer.hover()
        await board.page.mouse.down()
        await board.page.mouse.move(300, 250)
        await board.page.mouse.move(350, 250)
        await board.page.mouse.up()
        assert await left() != before
        await board.page.keyboard.press("0")
        await expect(scale).to_have_text(fitting or "")
        await board.button("Larger").click()
        await expect(scale).not_to_have_text(fitting or "")
        await board.button("Fit").click()
        await expect(scale).to_have_text(fitting or "")


# The telemetry


async def test_readings_are_plotted_and_titled_by_what_they_show(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        # A trend is that of the last 40 readings. The first one depends on the time of the day.
        for number in range(41):
            await site.read(battery=60.0 - number / 10, signal=50.0)
        await expect(board.page.locator("#battery-title")).to_have_text(re.compile(r"^Battery 56\.0 %, falling, −"))
        await expect(board.page.locator("#signal-title")).to_have_text("Signal 50.0 %, steady")
        await expect(board.page.locator("#relay")).to_have_text(re.compile(r"^−\d+ dBm$"))
        await site.read(battery=100.0, signal=0.0)
        await expect(board.page.locator("#battery-title")).to_have_text("Battery 100 %, full")
        await expect(board.page.locator("#relay")).to_have_text("none in view")
        await site.read(battery=18.04, state="science")
        await expect(board.page.locator("#battery-title")).to_have_text(re.compile(r"^Battery 18\.0 %, low, falling"))
        await expect(board.page.locator("#map-title")).to_have_text(re.compile(r"^Driving [a-z-]+ at \d\.\d cm/s$"))
        await expect(board.page.locator("#doing")).to_have_text("science")
        await expect(board.note).to_have_text(re.compile(r"^Newest reading \d\d:\d\d:\d\d UTC$"))
        await expect(board.page.locator("#odometer")).to_have_text(await site.odometer())
        await expect(board.page.locator("#battery-plot .series")).to_have_count(1)
        await expect(board.page.locator("#temperature-plot .series")).to_have_count(2)
        await expect(board.page.get_by_role("img", name="Map of the drive")).to_be_visible()
        await board.page.get_by_text("The last readings as a table").click()
        await expect(board.page.locator("#rows tr")).to_have_count(30)
        await expect(board.page.locator("#rows tr").first).to_contain_text("18.0")


async def test_a_low_battery_is_announced(browser: Browser, site: Site) -> None:
    await site.read(battery=18.04)
    async with visit(browser, site) as board:
        await board.open()
        await expect(board.announced).to_have_text(re.compile(r"Battery low, 18 percent"))


async def test_what_was_missed_is_filled_in_after_a_lost_connection(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await board.page.locator("#table").evaluate("(table) => { table.open = true; }")
        await site.read(5)
        await expect(board.page.locator("#rows tr")).to_have_count(6)
        site.relay.refuse()
        site.relay.cut()
        await expect(board.telemetry).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
        await site.read(5)
        await expect(board.page.locator("#rows tr")).to_have_count(6)  # what was there is there
        site.relay.refuse(False)
        await board.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(board.page.locator("#rows tr")).to_have_count(11)
        await expect(board.note).to_have_text("Connected again: 5 readings filled in.")
        times = await board.times()
        assert times == sorted(set(times), reverse=True)
        await expect(board.page.locator("#battery-plot .gap")).to_have_count(0)
        await expect(board.announced).to_have_text(re.compile("Telemetry: connected again"))


async def test_a_browser_that_is_offline_says_so(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await expect(board.panes[0].state).to_have_text("Connected")
        await board.page.context.set_offline(True)
        await expect(board.telemetry).to_have_text(re.compile(r"^Offline, next try in \d+ s$"))
        await expect(board.panes[0].state).to_have_text(re.compile(r"^Offline, next try in \d+ s$"))
        await expect(board.note).to_contain_text("What arrived is kept.")
        await board.page.context.set_offline(False)
        await expect(board.telemetry).to_have_text("Connected")
        await expect(board.panes[0].state).to_have_text("Connected")
        await expect(board.note).not_to_contain_text("What arrived is kept.")


async def test_a_gap_is_shown_and_no_line_is_drawn_over_it(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await site.read(10)
        await site.read(ticks=40)
        await site.read(10)
        await expect(board.page.locator("#battery-plot .series")).to_have_count(2)
        await expect(board.page.locator("#battery-plot .gap")).to_have_count(1)
        await expect(board.page.locator("#map-plot .series")).to_have_count(2)


async def test_a_server_that_stays_away_leaves_what_there_is_and_a_new_one_begins_anew(
    browser: Browser, image: Path
) -> None:
    async with serving_site(image) as site, visit(browser, site) as board:
        await board.open()
        await site.read(12)
        odometer = await site.odometer()
        await expect(board.page.locator("#odometer")).to_have_text(odometer)
        pane = board.panes[0]
        await pane.say("Before")
        await expect(pane.own).to_have_text(["Before"])
        await site.stop()
        await expect(board.telemetry).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
        await expect(pane.state).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
        await expect(board.announced).to_contain_text("Telemetry: reconnecting")
        await expect(board.announced).to_contain_text("engineering: reconnecting")
        await expect(pane.here).to_have_text("Last here: you")
        await pane.say("Meanwhile")
        await expect(pane.pending).to_contain_text("Kept. It is sent when the channel is connected.")
        await expect(board.page.locator("#odometer")).to_have_text(odometer)
        await expect(board.image).to_have_text("Complete")

        await site.start()
        await board.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(board.telemetry).to_have_text("Connected")
        await expect(board.note).to_have_text("The server has restarted, so its readings start again.")
        await site.read(3)
        await expect(board.page.locator("#odometer")).to_have_text(await site.odometer())
        await expect(pane.root).to_contain_text("Earlier messages are kept on this page only.")
        await expect(pane.own).to_have_text(["Before", "Meanwhile"])
        await expect(pane.pending).to_have_count(0)


async def test_a_moment_is_read_from_the_plots_by_pointer_and_keys(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await site.read(20)
        moment = board.page.get_by_role("slider", name="Moment of the plots")
        await expect(moment).to_have_text(re.compile("^Point at a plot"))
        await moment.focus()
        await board.page.keyboard.press("Home")
        await expect(moment).to_have_text(
            re.compile(r"^\d\d:\d\d:\d\d UTC · battery 62\.0 % · body −20\.0 °C · ambient")
        )
        await expect(moment).to_have_attribute("aria-valuetext", re.compile(r"battery 62\.0 %"))
        await board.page.keyboard.press("Escape")
        await expect(moment).to_have_text(re.compile("^Point at a plot"))
        await board.page.locator("#battery-plot").hover()
        await expect(board.page.locator("#battery-plot .chosen")).to_have_count(1)
        await expect(board.page.locator("#signal-plot .chosen")).to_have_count(1)


async def test_a_hidden_tab_gives_its_connection_back(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.page.clock.install()
        await board.open()
        await site.read(5)
        await expect(board.page.locator("#odometer")).to_have_text(await site.odometer())
        await board.hide()
        await board.page.clock.fast_forward(21_000)
        await expect(board.telemetry).to_have_text("Resting while hidden")
        await site.read(5)
        await board.hide(False)
        await expect(board.telemetry).to_have_text("Connected")
        await expect(board.page.locator("#odometer")).to_have_text(await site.odometer())


async def test_the_browsers_own_eventsource_reads_each_reading_once(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        read = board.page.locator("body")
        await board.page.evaluate(
            """(path) => {
                window.ids = [];
                new EventSource(path).onmessage = ({lastEventId}) => {
                    ids.push(lastEventId);
                    document.body.dataset.read = ids.length;
                };
            }""",
            PATH,
        )
        await site.read(3)
        await expect(read).to_have_attribute("data-read", "4")
        site.relay.cut()
        await site.read(5)
        await expect(read).to_have_attribute("data-read", "9")
        await site.read()
        await expect(read).to_have_attribute("data-read", "10")
        ids = await board.page.evaluate("ids")
        assert [int(one.rpartition(".")[2]) for one in ids] == list(range(1, 11))
        resumed = [headers.get("last-event-id") for path, headers in site.gate.asked if path == PATH]
        assert ids[3] in resumed


# The channels


async def test_two_people_talk_in_two_channels(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as ada, visit(browser, site, "grace", url=site.url) as grace:
        await ada.open()
        await grace.open()
        await expect(ada.panes[0].here).to_have_text("2 here: you, grace")
        await expect(grace.panes[1].here).to_have_text("2 here: you, ada")
        await ada.panes[0].field.press_sequentially("One")
        await ada.panes[0].field.press("Shift+Enter")
        await ada.panes[0].field.press_sequentially("two")
        await ada.panes[0].field.press("Enter")
        await expect(ada.panes[0].own).to_have_text(["One\ntwo"], use_inner_text=True)
        await expect(ada.panes[0].field).to_have_value("")
        await expect(grace.panes[0].said).to_have_text(["One\ntwo"], use_inner_text=True)
        await expect(grace.panes[0].own).to_have_count(0)
        await grace.panes[1].say("<b>Only science</b>")
        await expect(ada.panes[1].said).to_have_text(["<b>Only science</b>"])
        await grace.panes[0].say("Copy")
        await expect(ada.panes[0].said).to_have_text(["One\ntwo", "Copy"], use_inner_text=True)
        await expect(ada.panes[1].said).to_have_count(1)
        await grace.page.close()
        await expect(ada.panes[0].here).to_have_text("1 here: you")
        await expect(ada.panes[0].root.locator(".aside").last).to_have_text("grace left")
        async with site.present("engineering", ["linus"]):
            await expect(ada.panes[0].root.locator(".aside").last).to_have_text("grace left · linus joined")


async def test_one_who_comes_back_has_each_message_once(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as ada, visit(browser, site, "grace", url=site.url) as grace:
        await ada.open()
        await grace.open()
        first, second = ada.panes
        await expect(first.here).to_have_text("2 here: you, grace")
        await expect(second.here).to_have_text("2 here: you, grace")
        await grace.panes[0].say("before")
        await expect(first.said).to_have_text(["before"])
        site.relay.refuse()
        site.relay.cut()
        await expect(first.state).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
        for number in range(3):
            await grace.panes[0].say(f"meanwhile {number}")
        await expect(grace.panes[0].own).to_have_count(4)
        await first.say("from afar")
        await grace.panes[1].say("in science")
        await expect(grace.panes[1].own).to_have_count(1)
        site.relay.refuse(False)
        await ada.page.evaluate("dispatchEvent(new Event('online'))")
        talk = ["before", "meanwhile 0", "meanwhile 1", "meanwhile 2", "from afar"]
        await expect(first.said).to_have_text(talk)
        await expect(grace.panes[0].said).to_have_text(talk)
        await expect(second.said).to_have_text(["in science"])
        await expect(first.here).to_have_text("2 here: you, grace")
        await expect(first.pending).to_have_count(0)


async def test_a_message_is_said_as_it_was_typed(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        pane = board.panes[0]
        await expect(pane.state).to_have_text("Connected")
        typed = [
            "hello ",
            "1.0",
            '"quoted"',
            "NaN",
            "null",
            '{"a": 1}',
            "  aligned",
            "[1, 2]",
            "<img src=x>",
        ]
        for text in typed:
            await pane.say(text)
        await expect(pane.pending).to_have_count(0)
        await expect(pane.own).to_have_count(len(typed))
        assert await pane.own.all_text_contents() == [text.rstrip() for text in typed]
        await site.say("engineering", "grace", {"of": "a program"})
        await expect(pane.said.last).to_have_text('{"of":"a program"}')


async def test_messages_that_nobody_saw_are_counted(browser: Browser, site: Site) -> None:
    await site.say("science", "grace", *(f"Message {number}" for number in range(30)))
    async with visit(browser, site) as board:
        await board.page.clock.install()
        await board.open()
        pane = board.panes[1]
        await expect(pane.said).to_have_count(30)
        await expect(board.panes[0].state).to_have_text("Connected")
        await expect(pane.unread).to_be_hidden()  # it is history
        await board.page.clock.fast_forward(1_000)
        await pane.root.locator(".log").press("Home")
        await expect(pane.button("↓ Jump to latest")).to_be_visible()
        await site.say("science", "grace", "Above?")
        await expect(pane.unread).to_have_text("1 unread")
        await expect(board.page).to_have_title("(1) Mission control")
        await pane.button("↓ Jump to latest").click()
        await expect(pane.unread).to_be_hidden()
        await expect(board.page).to_have_title("Mission control")
        await board.hide()
        await site.say("engineering", "grace", "Hello?")
        await expect(board.page).to_have_title("(1) Mission control")
        await board.hide(False)
        await expect(board.page).to_have_title("Mission control")


async def test_a_name_is_asked_for_once_and_checked(browser: Browser, site: Site) -> None:
    async with visit(browser, site, None) as board:
        await board.open()
        await expect(board.panes[0].state).to_have_text("Not connected")
        await expect(board.panes[0].root).to_contain_text("Enter your name above to join this channel.")
        field = board.page.get_by_label("Your name on the channels")
        await field.fill("a/b")
        await field.press("Enter")
        await expect(board.page.locator("#name-fault")).to_contain_text("Use 1 to 32 letters")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await field.fill("Żółw 1")
        await field.press("Enter")
        await expect(board.panes[0].state).to_have_text("Connected")
        await expect(board.panes[0].field).to_be_focused()
        await expect(board.panes[0].root).to_contain_text("No messages in engineering yet.")
        await board.open()
        await expect(field).to_be_hidden()
        await expect(board.panes[1].here).to_have_text("1 here: you")
        await expect(board.page.locator("#you")).to_have_text("Żółw 1")


async def test_a_channel_and_a_draft_are_kept(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        pane = board.panes[0]
        await pane.join("no/way")
        await expect(pane.root.get_by_role("alert")).to_contain_text("Use 1 to 64 letters")
        await pane.root.get_by_label("Channel", exact=True).fill("navigation")
        await pane.root.get_by_label("Channel", exact=True).press("Enter")
        await expect(pane.title).to_have_text("navigation")
        await expect(pane.field).to_be_focused()
        await expect(pane.here).to_have_text("1 here: you")
        await pane.field.fill("not yet sent")
        await board.open()
        await expect(pane.title).to_have_text("navigation")
        await expect(pane.field).to_have_value("not yet sent")


async def test_what_could_not_be_sent_becomes_a_draft_when_its_channel_is_left(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        pane = board.panes[0]
        await expect(pane.state).to_have_text("Connected")
        site.relay.refuse()
        site.relay.cut()
        await expect(pane.state).not_to_have_text("Connected")
        await pane.say("kept unsent")
        await pane.field.fill("not yet sent")
        await pane.join("navigation")
        await expect(pane.field).to_have_value("")
        await pane.join("engineering")
        await expect(pane.field).to_have_value("kept unsent\nnot yet sent")


async def test_refusals_are_explained_and_nothing_is_lost(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        first, second = board.panes
        await expect(first.state).to_have_text("Connected")
        await first.say("x" * 17_000)
        await expect(first.pending).to_contain_text(
            "Not sent: Expected a message of at most 16384 bytes, but got 17002."
        )
        await expect(board.announced).to_contain_text("Message not sent")
        await first.button("Edit").click()
        await expect(first.field).to_be_focused()
        assert await first.field.input_value() == "x" * 17_000
        await expect(first.pending).to_have_count(0)
        await second.join("closed")
        await expect(second.state).to_have_text("Refused")
        await expect(second.note).to_contain_text("The channel is for flight directors.")
        await expect(second.button("Join again")).to_be_visible()


WATCH = """
(element) => {
    window.seen = [];
    new MutationObserver(() => seen.push(element.textContent)).observe(element, {childList: true});
}
"""

FAREWELL = '{"event":"farewell","data":{"reason":"%s","retry":60000}}'


@pytest.mark.parametrize(
    ("last", "code", "state"),
    [
        ('{"event":"done","id":"S.e.1.end","data":{}}', 1000, r"^Ended$"),
        (None, 1008, r"^Refused$"),
        (None, 1011, r"^Reconnecting in \d s$"),
        (None, 1013, r"^Reconnecting in \d s$"),
        (None, 4409, r"^Open elsewhere$"),
        (FAREWELL % "replaced", 4409, r"^Open elsewhere$"),
        (FAREWELL % "shutdown", 1012, r"^Reconnecting in (60|5\d) s$"),
        ('{"event":"error","id":"S.e.1.end","data":{"code":"x","message":"it broke"}}', 1011, r"^Failed$"),
        ('{"event":"error","data":{"status":403,"detail":"not you"}}', 1008, r"^Refused$"),
        ("not JSON", 1000, r"^Failed$"),
    ],
)
async def test_the_end_of_a_connection_is_understood(
    browser: Browser, site: Site, last: str | None, code: int, state: str
) -> None:
    async with visit(browser, site) as board:
        sockets: list[WebSocketRoute] = []
        await board.page.route_web_socket(re.compile("/ws/comms/engineering"), lambda socket: sockets.append(socket))
        await board.open()
        pane = board.panes[0]
        await expect(pane.state).to_have_text("Connected")
        await pane.state.evaluate(WATCH)
        if last is not None:
            sockets[0].send(last)
        await sockets[0].close(code=code, reason="because")
        await board.page.wait_for_function("(state) => seen.some((text) => RegExp(state).test(text))", arg=state)


async def test_members_are_named_as_far_as_there_is_room(browser: Browser, site: Site) -> None:
    members = [f"member {number}" for number in range(9)]
    async with site.present("science", members), visit(browser, site) as board:
        await board.open()
        pane = board.panes[1]
        named = ", ".join(f"member {number}" for number in range(5))
        await expect(pane.here).to_have_text(f"10 here: you, {named} and 4 more")
        await pane.here.click()
        await expect(pane.here).to_have_attribute("aria-expanded", "true")
        await expect(pane.root.get_by_role("list", name="Members").get_by_role("listitem")).to_have_count(10)


async def test_what_is_sent_into_a_lost_connection_is_in_doubt(browser: Browser, site: Site) -> None:
    lossy = False

    def pass_on(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(lambda message: None if lossy else server.send(message))

    async with visit(browser, site) as board:
        await board.page.route_web_socket(re.compile("/ws/comms/engineering"), pass_on)
        await board.page.clock.install()
        await board.open()
        pane = board.panes[0]
        await expect(pane.state).to_have_text("Connected")
        lossy = True
        await pane.say("Lost?")
        await expect(pane.pending).to_contain_text("Sending")
        site.relay.cut()
        await expect(pane.state).not_to_have_text("Connected")
        lossy = False
        await board.page.clock.fast_forward(2_000)
        await expect(pane.state).to_have_text("Connected")
        await board.page.clock.fast_forward(1_000)
        await board.page.clock.fast_forward(6_000)
        await expect(pane.pending).to_contain_text("Not known whether it was sent.")
        await pane.button("Send again").click()
        await expect(pane.own).to_have_text(["Lost?"])
        await expect(pane.pending).to_have_count(0)


# The page


async def test_a_phone_has_one_column_and_large_targets(browser: Browser, site: Site) -> None:
    async with visit(browser, site, options=PHONE) as board:
        await board.page.clock.install()
        await board.open()
        await expect(board.panes[1].state).to_have_text("Connected")
        await board.page.clock.fast_forward(1_000)
        await site.read(20)
        await expect(board.image).to_have_text("Complete")
        assert await board.page.evaluate("document.documentElement.scrollWidth") == 360
        small = await board.page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, textarea, summary, nav a')]
                .filter((one) => one.checkVisibility())
                .filter((one) => one.getBoundingClientRect().height < 44 || one.getBoundingClientRect().width < 44)
                .map((one) => one.outerHTML)"""
        )
        assert small == []
        await site.say("science", "grace", "Hello?")
        link = board.page.get_by_role("link", name=re.compile("^Channels"))
        await expect(link).to_contain_text("1")
        await link.click()
        await expect(board.panes[0].title).to_be_in_viewport()
        await expect(link).to_be_in_viewport()  # it stays at the top
        await board.panes[1].field.scroll_into_view_if_needed()
        await expect(board.page).to_have_title("Mission control")


CONTRAST = """
() => {
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const color = parse(getComputedStyle(one).backgroundColor);
            if (color.length < 4 || color[3] > 0.5) return color;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const ink = parse(element instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([walker.currentNode.data, (a + 0.05) / (b + 0.05)]);
    }
    return faint;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_texts_have_contrast_and_axe_finds_nothing(browser: Browser, site: Site, scheme: Any) -> None:
    await site.say("engineering", "grace", "Hello")
    async with visit(browser, site, options={"color_scheme": scheme}) as board:
        await board.open()
        await site.read(20)
        await expect(board.page.locator("#doing")).to_have_text("driving")
        await board.panes[0].say("x" * 17_000)
        await expect(board.panes[0].pending).to_contain_text("Not sent")
        assert await board.page.evaluate(CONTRAST) == []
        await check_access(board.page)


async def test_the_whole_page_is_reached_by_keys_in_reading_order(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as board:
        await board.open()
        await expect(board.image).to_have_text("Complete")
        await expect(board.panes[1].here).to_have_text("1 here: you")
        seen = []
        for _ in range(40):
            await board.page.keyboard.press("Tab")
            name = await board.page.evaluate(
                """() => {
                    const one = document.activeElement;
                    if (one === document.body) return null;
                    const title = document.getElementById(one.getAttribute('aria-labelledby'));
                    return one.getAttribute('aria-label') || (one.labels?.[0] ?? title ?? one).textContent.trim();
                }"""
            )
            if name is None:
                break
            seen.append(re.sub(r"\s+", " ", name))
        assert seen[0] == "To the channels"
        order = ["Image from the rover", "Refresh", "Larger", "Time that is plotted", "Moment of the plots"]
        order += ["The last readings as a table", "Change name", "Message to engineering", "Message to science", "Send"]
        places = [len(seen) - 1 - seen[::-1].index(name) for name in order]
        assert places == sorted(places)


def modules_of(script: str) -> set[str]:
    """A module and all that it imports, which are there."""
    found, left = set(), {script}
    while left:
        name = left.pop()
        found.add(name)
        file = next(file for folder in (PAGES / "assets", SHARED, CLIENT) if (file := folder / name).exists())
        left |= set(re.findall(r'^(?:import|export|\}).* from "\./([^"]+)"', file.read_text(), re.MULTILINE)) - found
    return found


async def test_the_page_names_all_its_modules_and_has_nothing_inline() -> None:
    text = (PAGES / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="assets/([^"]+\.js)"', text)) == modules_of("rover.js")
    assert {file.name for file in (PAGES / "assets").iterdir()} <= set(re.findall(r'="assets/([^"]+)"', text))
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]

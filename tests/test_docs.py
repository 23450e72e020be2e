"""Run what the documentation shows, and check that it names what it must.

- A `python` block that begins with a file name in a comment is that whole file. If it has an `app`, it is served, and
  the `console` blocks after it are run against it. The other files up to the next app are in the same folder.
- After a `sh` block that starts the chat server, `console` blocks are run against the chat server.
- The tests of a `python` block whose file name begins with `test_` are run.
- A `python` block without a file name is run if it asserts something, and otherwise only parsed.
- A `text` block that begins with `$ tailrace chat` is typed into a terminal.
- Other `sh` blocks are not run, but their `tailrace` commands are parsed.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright
from pydantic import BaseModel

import tailrace
import tailrace.client
import tailrace.packets
import tailrace.rooms
import tailrace.testing
from tailrace.asgi import disconnect, lifespan
from tailrace.cli.chat import CHAT as TALK
from tailrace.cli.command import Command as Subcommand
from tailrace.cli.commands import make_parser
from tailrace.cli.protocol import BoundedProtocol
from tailrace.cli.tail import TAIL
from tailrace.cli.terminal.commands import COMMANDS, KEYS
from tailrace.client import AsyncChat, AsyncPackets, ChatClient, PacketClient, Retry, SocketPacket, Timeouts
from tailrace.cursor import Cursor, is_cursor
from tailrace.events import RESERVED
from tailrace.log.redis import beat, writer
from tailrace.log.redis.store import Pace
from tailrace.packets import ClientSession, PacketLimits, SessionStatistics, packets_router
from tailrace.packets.sessions import REMEMBERED
from tailrace.rooms import RoomLimits, RoomStatistics, rooms_router
from tailrace.testing import LogContract
from tests.cli.terminal.screen import Terminal, terminal
from tests.programs import serving_app, serving_chat
from tests.reliability import test_connections, test_data, test_servers, test_workers
from tests.transcripts import ADDRESS, Command, Session, read_transcript

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs" / "reference.md"
CLIENT = ROOT / "docs" / "client.md"
CHATTING = ROOT / "docs" / "chat.md"
MISTAKES = ROOT / "docs" / "mistakes.md"
SESSIONS = ROOT / "docs" / "packets.md"
TALKING = ROOT / "docs" / "rooms.md"
DEPLOYING = ROOT / "docs" / "deploy.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
RELIABILITY = ROOT / "docs" / "reliability.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVE = re.compile(r"^(?:make|tailrace) serve\b", re.MULTILINE)
_FILE = re.compile(r"(?:#|//|<!--) (\w+\.(?:py|js|html))(?: -->)?\n")

CHAT = "the chat server"


@dataclass
class Case:
    """An app, the files beside it, and the commands to run against it."""

    page: str
    name: str
    files: dict[str, str]
    commands: list[Command] = field(default_factory=list)


def blocks(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(page.read_text())


def cases(page: Path) -> Iterator[Case]:
    case: Case | None = None
    for language, text in blocks(page):
        file = _FILE.match(text)
        if language == "python" and file is not None and re.search(r"^app = |^async def app\(", text, re.MULTILINE):
            if case is not None:
                yield case
            case = Case(page.name, file[1], {file[1]: text})
        elif language == "sh" and _SERVE.search(text):
            if case is not None:
                yield case
            case = Case(page.name, CHAT, {})
        elif file is not None and case is not None:
            assert file[1] not in case.files, f"{page.name} has two files {file[1]}"
            case.files[file[1]] = text
        elif language == "console":
            assert case is not None, f"{page.name} has a transcript before an app"
            case.commands += read_transcript(text)
    if case is not None:
        yield case


CASES = [case for page in PAGES for case in cases(page) if case.name != CHAT or case.commands]


@contextmanager
def serving_case(case: Case, folder: Path) -> Iterator[str]:
    """Serve the app of a case in a folder with all its files. Yield the address."""
    if case.name != CHAT:
        (folder / case.name).write_text(case.files[case.name])
    app = f"{case.name.removesuffix('.py')}:app"
    with serving_chat(folder) if case.name == CHAT else serving_app(app, folder) as server:
        address = server.url.removeprefix("http://")
        for name, text in case.files.items():
            if name != case.name:
                (folder / name).write_text(text.replace(ADDRESS, address))
        yield address


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.page}:{case.name}")
def test_what_is_shown_is_what_happens(case: Case, tmp_path: Path) -> None:
    with serving_case(case, tmp_path) as address:
        Session(tmp_path, address).run(case.commands)


def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "browser.py")
    with serving_case(case, tmp_path) as address, sync_playwright() as playwright:
        # chromium does not start with its sandbox as root, and containers often run as root.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://{address}/")
        for paragraph in ("#source", "#fetched"):
            expect(page.locator(paragraph)).to_have_text("one two three (done)", timeout=30_000)
        browser.close()


def test_the_form_of_a_page_works_in_a_browser(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "forms.py")
    with serving_case(case, tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://{address}/")
        page.get_by_label("Your question").fill("Why?")
        page.keyboard.press("Enter")
        expect(page.get_by_role("group", name="Answer")).to_have_text("You asked: Why? ", timeout=30_000)
        expect(page.get_by_role("status")).to_have_text("Complete.")
        browser.close()


def test_the_states_of_a_form_are_on_its_page() -> None:
    states = re.search(r"@typedef \{(.*)\} State", (ROOT / "src" / "tailrace" / "js" / "widget.js").read_text())
    assert states is not None
    shown = section("What the user sees", ROOT / "docs" / "widgets.md")
    assert re.findall(r"^\| `(\w+)` \|", shown, re.MULTILINE) == re.findall(r'"(\w+)"', states[1])


ASSERTING = [
    pytest.param(text, id=f"{page.name}:{number}")
    for page in PAGES
    for number, (language, text) in enumerate(blocks(page))
    if language == "python" and _FILE.match(text) is None and re.search(r"^ *assert ", text, re.MULTILINE)
]


@pytest.mark.parametrize("code", ASSERTING)
def test_what_is_asserted_holds(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=100)


SUITES = [
    pytest.param(file[1], text, id=f"{page.name}:{file[1]}")
    for page in PAGES
    for language, text in blocks(page)
    if language == "python" and (file := _FILE.match(text)) is not None and file[1].startswith("test_")
]


@pytest.mark.parametrize(("name", "code"), SUITES)
def test_the_tests_of_a_file_pass(name: str, code: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(code)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", name]
    subprocess.run(command, check=True, timeout=100, cwd=tmp_path)


TALKS = [
    pytest.param(text, id=page.name)
    for page in PAGES
    for language, text in blocks(page)
    if language == "text" and text.startswith("$ tailrace chat\n")
]

_PROMPT = "(?:new|[0-9a-f]{8})>"
_TYPED = re.compile(rf"^{_PROMPT} (.+)\n", re.MULTILINE)
# What differs from run to run, and `…` for lines that the page leaves out.
_VARYING = re.compile(
    r"(?P<id>\b[0-9a-f]{8}\b)|(?P<moment>\d{4}-\d\d-\d\d \d\d:\d\d)|(?P<number>[\d.]+(?= chunks| s ·))"
    r"|(?P<lasted>[\d.]+ s {2,})|^…\n",
    re.M,
)
_ANY = {
    "id": "[0-9a-f]{8}",
    "moment": r"[\d: -]{16}",
    "number": r"[\d.]+",
    "lasted": r"[\d.]+ s +",
    None: r"(?:.*\n)*?",
}


def pattern_of(shown: str) -> str:
    """Return a pattern that matches what a terminal shows if the page is right."""
    ends = [0, *(end for match in _VARYING.finditer(shown) for end in match.span()), len(shown)]
    kept = [re.escape(shown[start:end]) for start, end in zip(ends[::2], ends[1::2], strict=True)]
    kinds = [_ANY[match.lastgroup] for match in _VARYING.finditer(shown)]
    return "".join(part for pair in zip(kept, [*kinds, ""], strict=True) for part in pair)


def until_shown(screen: Terminal, shown: str, end: str) -> None:
    pattern = re.compile(pattern_of(shown) + end)
    screen.until(lambda: pattern.search(screen.text) is not None, f"expected\n{shown}")


@pytest.mark.parametrize("shown", TALKS)
def test_the_terminal_shows_what_a_page_says(shown: str, tmp_path: Path) -> None:
    with serving_chat(tmp_path) as server, terminal(tmp_path, "chat", server.url) as screen:
        greeting, *talk = _TYPED.split(shown.partition("\n")[2].replace(f"http://{ADDRESS}", server.url))
        until_shown(screen, greeting, _PROMPT)
        for line, output in zip(talk[::2], talk[1::2], strict=True):
            screen.send(line)
            before, stopped, _ = output.partition("…\nstopped ·")
            if stopped:
                until_shown(screen, f"> {line}\n{before}", "")
                screen.type("ctrl-c")
            if line != "/quit":
                until_shown(screen, f"> {line}\n{output}", rf"{_PROMPT}\Z")
        assert screen.end() == 0


SHELL = [
    pytest.param(line, id=f"{page.name}: {line}")
    for page in PAGES
    for language, text in blocks(page)
    if language == "sh"
    for line in re.findall(r"^(?:\w+=\S+ )*tailrace ([^|#\n]*)", text, re.MULTILINE)
]


@pytest.mark.parametrize("line", SHELL)
def test_a_command_can_be_parsed(line: str) -> None:
    make_parser().parse_args(shlex.split(line))


def test_the_readme_shows_how_to_start_its_first_example() -> None:
    first = next(case for case in cases(PAGES[0]) if case.name != CHAT)
    shown = "".join(text for language, text in blocks(PAGES[0]) if language == "sh")
    assert f"uvicorn {first.name.removesuffix('.py')}:app\n" in shown
    assert 'pip install "./tailrace[server]"\n' in shown
    said = " ".join(command.line for command in first.commands)
    for way in ("stream=true", "Accept: text/event-stream", "Last-Event-ID", "/stop", 'tailrace tail "ws://'):
        assert way in said


def test_the_readme_compares_with_figures_that_were_measured() -> None:
    measured = (ROOT / "docs" / "benchmarks" / "README.md").read_text()
    figures = re.findall(r"[\d.]+×", section("Comparison", PAGES[0]))
    assert figures
    assert [figure for figure in figures if f"| {figure} |" not in measured] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_can_be_parsed(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            compile(text, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


def test_the_bounds_that_a_page_names_are_those_of_the_protocol_class() -> None:
    assert f"--http {BoundedProtocol.__module__}:{BoundedProtocol.__name__} " in DEPLOYING.read_text()
    said = section("One process", DEPLOYING)
    bounds = BoundedProtocol
    assert f"a head above {bounds.max_head >> 10} KB" in said
    assert f"after {bounds.max_waiting} waiting requests" in said
    assert f"after {bounds.head_seconds:g} s for a head, and after {bounds.request_seconds:g} s for a head" in said


def test_the_length_that_a_page_gives_is_that_of_the_longest_cursor() -> None:
    said = re.search(r"A cursor is at most (\d+) characters", section("Cursors", PROTOCOL))
    assert said is not None
    longest = str(Cursor("s" * 128, "e" * 32, 10**15 - 1, ended=True, tag="t" * 8))
    assert len(longest) == int(said[1])
    assert is_cursor(longest)
    for longer in (f"s{longest}", longest.replace(".e", ".ee"), longest.replace("~", "9~"), longest.replace("~", "~t")):
        assert not is_cursor(longer)


def test_every_notice_is_in_the_protocol() -> None:
    assert set(rows(section("Notices", PROTOCOL))) == RESERVED


def test_the_log_lines_that_a_page_quotes_are_what_the_server_logs() -> None:
    quoted = [re.sub(r"^(?:\d+ |\S+: )", "", text.strip()) for language, text in blocks(MISTAKES) if language == "text"]
    written = ["".join(re.findall(r'"(.*)"', inspect.getsource(module))) for module in (lifespan, disconnect)]
    assert [line in source for line, source in zip(quoted, written, strict=True)] == [True, True]


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


MARKDOWN = [*PAGES, *sorted((ROOT / "exercises").rglob("README.md")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text())):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            assert not anchor or anchor in _anchors(linked), target


# The reference


def section(title: str, page: Path = REFERENCE) -> str:
    """Return the text under a heading, up to the next heading."""
    text = _BLOCK.sub("", page.read_text())
    match = re.search(rf"^(#+) `?{re.escape(title)}`?$(.*?)(?=^#{{1,3}} |\Z)", text, re.M | re.S)
    assert match is not None, f"expected a heading {title} in {page.name}"
    return match[2]


def rows(text: str) -> dict[str, str]:
    """Return the first two columns of the tables whose first column is a name in backticks."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize("name", tailrace.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert re.search(rf"`{name}\b", REFERENCE.read_text())


def test_the_reference_names_nothing_that_is_not_public() -> None:
    titles = re.findall(r"^### `(\w+)[`.]", REFERENCE.read_text(), re.MULTILINE)
    assert set(titles) <= set(tailrace.__all__)


@pytest.mark.parametrize(
    ("title", "function"),
    [
        ("StreamRouter", tailrace.StreamRouter),
        ("StreamRouter.stream", tailrace.StreamRouter.stream),
        ("StreamSettings", tailrace.StreamSettings),
        ("StreamResponse", tailrace.StreamResponse),
        ("Engine", tailrace.Engine),
        ("Flow", tailrace.Flow),
        ("Retention", tailrace.Retention),
        ("Keeping", tailrace.Keeping),
        ("Producer", tailrace.Producer),
        ("stream_response", tailrace.stream_response),
        ("FileResponse", tailrace.FileResponse),
        ("create_streaming_endpoint", tailrace.create_streaming_endpoint),
        ("get_streaming_html", tailrace.get_streaming_html),
        ("get_streaming_js", tailrace.get_streaming_js),
    ],
)
def test_every_setting_is_in_the_reference_with_its_default(title: str, function: Callable[..., Any]) -> None:
    check_settings(title, function, REFERENCE)


def check_settings(title: str, function: Callable[..., Any], page: Path) -> None:
    shown = rows(section(title, page))
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self" or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        assert name in shown, f"expected {title} to document {name}"
        default = parameter.default
        if isinstance(default, bool | int | float | str | tuple | None) and not _holds_objects(default):
            assert shown[name] == f"`{default!r}`".replace("'", '"'), f"{title}, {name}"
        elif default is inspect.Parameter.empty:
            assert shown[name] == "required", f"{title}, {name}"


def _holds_objects(default: object) -> bool:
    return isinstance(default, tuple) and any(not isinstance(each, str | float) for each in default)


@pytest.mark.parametrize(
    "title", ["LogStatistics", "Control", "Event", "Outcome", "Frame", "Farewell", "Dropped", "Degraded", "Reset"]
)
def test_every_field_is_in_the_reference(title: str) -> None:
    fields = {field.name for field in dataclasses.fields(getattr(tailrace, title))}
    assert fields <= set(rows(section(title)))


@pytest.mark.parametrize("kind", [tailrace.Engine, tailrace.Log, tailrace.LogStore, tailrace.Writer])
def test_the_reference_says_which_methods_are_awaited(kind: type) -> None:
    shown = check_methods(kind, REFERENCE)
    promised = {name for name in getattr(kind, "__abstractmethods__", ()) if callable(getattr(kind, name))}
    assert promised - {"read_nowait", "size"} <= shown.keys()


def check_methods(kind: type, page: Path) -> dict[str, bool]:
    """Check which methods are shown as awaited. Return whether they are, by name."""
    cells = re.findall(r"^\| (`[^|]*`) \|", section(kind.__name__, page), re.MULTILINE)
    shown = {name: bool(awaited) for cell in cells for awaited, name in re.findall(r"`(await )?(\w+)\(", cell)}
    methods = {name: getattr(kind, name) for name in shown if name not in kind.__annotations__}
    assert {name: inspect.iscoroutinefunction(method) for name, method in methods.items()}.items() <= shown.items()
    return shown


@pytest.mark.parametrize("name", tailrace.testing.__all__)
def test_every_tool_for_tests_is_in_the_reference(name: str) -> None:
    assert re.search(rf"`{name}\b", section("Testing"))


def test_every_member_that_a_contract_defines_is_in_the_reference() -> None:
    members = {name for kind in LogContract.__mro__[:-1] for name in vars(kind) if not name.startswith(("_", "test_"))}
    assert set(re.findall(r"^\| `(?:await )?(\w+)", section("A store"), re.MULTILINE)) == members


# Packet sessions


@pytest.mark.parametrize("name", tailrace.packets.__all__)
def test_every_name_of_packet_sessions_is_on_their_page(name: str) -> None:
    assert re.search(rf"`{name}\b", SESSIONS.read_text().partition("## Reference")[2])


@pytest.mark.parametrize("function", [packets_router, PacketLimits])
def test_every_setting_of_packet_sessions_is_on_their_page_with_its_default(function: Callable[..., Any]) -> None:
    check_settings("packets_router" if function is packets_router else function.__name__, function, SESSIONS)


def test_every_member_of_a_session_is_on_the_page_of_packet_sessions() -> None:
    shown = check_methods(ClientSession, SESSIONS)
    public = {name for name, member in vars(ClientSession).items() if callable(member) and not name.startswith("_")}
    assert shown.keys() == public - {"run"}
    assert {field.name for field in dataclasses.fields(SessionStatistics)} == set(
        rows(section("SessionStatistics", SESSIONS))
    )


def test_the_bounds_that_a_page_names_are_those_of_packet_sessions() -> None:
    usual, least = PacketLimits().window, PacketLimits(pending=1).window
    said = f"It remembers the last {usual:,} of them by default: four times `pending`, and at least {least:,}."
    assert said in SESSIONS.read_text()
    assert f"it knows at least the last {least:,} ids" in PROTOCOL.read_text()
    for page in (SESSIONS, PROTOCOL):
        assert f"remembers the last one of each of {REMEMBERED:,} sessions" in " ".join(page.read_text().split())
    assert f"waits while the client is {tailrace.Flow.block().high:,} packets behind" in SESSIONS.read_text()


# Rooms


@pytest.mark.parametrize("name", tailrace.rooms.__all__)
def test_every_name_of_rooms_is_on_their_page(name: str) -> None:
    assert re.search(rf"`{name}\b", TALKING.read_text().partition("## Reference")[2])


@pytest.mark.parametrize(
    ("title", "function"),
    [("rooms_router", rooms_router), ("RoomLimits", RoomLimits), ("RoomStatistics", RoomStatistics)],
)
def test_every_setting_of_rooms_is_on_their_page_with_its_default(title: str, function: Callable[..., Any]) -> None:
    check_settings(title, function, TALKING)


# Reliability


def test_each_fault_of_the_table_has_its_test() -> None:
    modules = test_connections, test_data, test_servers, test_workers
    functions = [function for module in modules for function in vars(module).values()]
    marks = [mark for function in functions for mark in getattr(function, "pytestmark", ()) if mark.name == "fault"]
    told = [[mark.args[0], *(mark.kwargs[name] for name in ("noticed", "reader", "writer"))] for mark in marks]
    lines = re.findall(r"^\| (.*) \|$", section("The faults", RELIABILITY), re.MULTILINE)
    shown = [line.split(" | ") for line in lines[1:]]
    assert [[fault, noticed, *seen] for fault, noticed, _, _, *seen in shown] == told
    assert all(re.fullmatch(r"–|[\d.]+ m?s \([\d.]+ m?s\)", time) for row in shown for time in row[2:4])


def test_the_bounds_that_a_page_names_are_those_of_the_store() -> None:
    said, pace = " ".join(RELIABILITY.read_text().split()), Pace()
    assert f"if Redis accepts nothing for {writer.PATIENCE:g} s" in said
    assert f"waits in the process, up to {writer.FULL >> 20} MiB" in said
    assert (beat.DEAD_AFTER, pace.interval) == (3, 1.0)
    assert "after three rounds of a second" in said
    assert f"half a second after a connection is lost, or within {1.5 * pace.interval:g} s" in said
    assert f"after {pace.patience:g} s of attempts" in said
    assert f"{test_workers.LEAST} to {test_workers.MOST} commands for each stream" in said


# The clients


@pytest.mark.parametrize("name", tailrace.client.__all__)
def test_every_name_of_the_client_is_on_its_page(name: str) -> None:
    assert re.search(rf"`{name}\b", CLIENT.read_text())


@pytest.mark.parametrize("function", [tailrace.client.tail, ChatClient, PacketClient, Retry, Timeouts])
def test_every_parameter_of_the_client_is_on_its_page_with_its_default(function: Callable[..., Any]) -> None:
    check_settings(function.__name__, function, CLIENT)


MODELS = [
    value
    for value in (getattr(tailrace.client, name) for name in tailrace.client.__all__)
    if inspect.isclass(value) and issubclass(value, BaseModel) and value is not SocketPacket
]


@pytest.mark.parametrize("model", MODELS)
def test_every_member_of_an_object_is_on_the_page_of_the_client(model: type[BaseModel]) -> None:
    shown = rows(section("The chat server", CLIENT))
    inherited = model.__mro__[1].__name__ if shown[model.__name__].startswith("and ") else ""
    assert set(model.model_fields) <= set(re.findall(r"`(\w+)`", shown[model.__name__] + shown.get(inherited, "")))


@pytest.mark.parametrize("member", [*SocketPacket.model_fields, "reply"])
def test_every_member_of_a_packet_is_on_the_page_of_the_client(member: str) -> None:
    assert re.search(rf"`(packet\.)?{member}\b", section("Packet sessions", CLIENT))


PACKETS = {name for kind in AsyncPackets.__mro__ for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("member", sorted(PACKETS))
def test_every_member_of_a_session_is_on_the_page_of_the_client(member: str) -> None:
    assert re.search(rf"`(await )?session\.{member}\b", section("Packet sessions", CLIENT))


REQUESTS = [name for kind in AsyncChat.__mro__ for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_of_a_chat_is_on_the_page_of_the_client(name: str) -> None:
    assert f"| `{name}(" in section("The chat server", CLIENT)


@pytest.mark.parametrize(("command", "page"), [(TALK, CHATTING), (TAIL, CLIENT)], ids=["chat", "tail"])
def test_the_options_of_a_command_are_on_its_page(command: Subcommand, page: Path) -> None:
    parser = ArgumentParser(add_help=False)
    command.configure(parser)
    options = re.findall(r"^  (--[a-z-]+)", parser.format_help(), re.MULTILINE)
    assert (
        re.findall(
            r"^\| `(--[a-z-]+)", page.read_text().partition("In scripts" if page is CHATTING else "---")[2], re.M
        )
        == options
    )


def test_the_commands_of_the_chat_are_on_its_page() -> None:
    shown = dict(re.findall(r"^\| `(/[^`]+)` \| (.*) \|$", section("Talk in the terminal", CHATTING), re.MULTILINE))
    assert list(shown) == [command.usage for command in COMMANDS.values()]
    for command in COMMANDS.values():
        assert shown[command.usage].startswith(command.summary)


def test_the_keys_of_the_chat_are_on_its_page() -> None:
    shown = re.findall(r"^\| ([\w, -]+) \|", section("Talk in the terminal", CHATTING), re.MULTILINE)
    assert {key for key, _ in KEYS} <= set(shown)

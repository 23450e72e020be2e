from __future__ import annotations

import time
from asyncio import to_thread
from pathlib import Path

import httpx
import pytest
from prompt_toolkit.history import FileHistory, InMemoryHistory

from tailrace.chat.access import ANYBODY
from tailrace.cli.terminal.commands import COMMANDS
from tailrace.cli.terminal.input import history_path, open_history
from tests.chat.api import talking
from tests.cli.served import PATIENCE
from tests.cli.terminal.screen import TAILRACE, chatting, chatting_with, session_of, terminal
from tests.programs import Server

HINT = "Ctrl-D or /quit leaves."


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_STATE_HOME": "/state", "LOCALAPPDATA": "/local"}, Path("/state")),
        ({"LOCALAPPDATA": "/local"}, Path("/local")),
        ({}, Path.home() / ".local" / "state"),
    ],
)
def test_the_history_is_where_a_system_keeps_such_things(environment: dict[str, str], folder: Path) -> None:
    assert history_path(environment) == folder / "tailrace" / "history"


def test_the_history_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "tailrace" / "history"
    assert isinstance(open_history(path), FileHistory)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert isinstance(open_history(path), FileHistory)
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(open_history(path / "no" / "folder"), InMemoryHistory)


def test_ctrl_c_drops_what_is_typed_and_says_how_to_leave_only_where_nothing_is(
    chat_server: Server, tmp_path: Path
) -> None:
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type("something", "ctrl-c")
        screen.until(lambda: screen.text.endswith("> something\nnew>"), "expected an empty prompt")
        screen.type("ctrl-c")
        screen.until(lambda: screen.text.endswith(f"{HINT}\nnew>"), "expected how to leave")


def test_enter_in_a_search_takes_what_was_found(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path) as screen:
        for line in ("/nothing", "/else"):
            screen.ask(line, f"unknown command {line}")
            screen.prompt()
        screen.type("\x12", "noth")
        screen.until(lambda: screen.text.endswith("I-search backward: noth"), "expected the search")
        screen.type("enter")
        screen.until(lambda: screen.text.endswith("new> /nothing"), "expected what was found")
        assert screen.text.count("unknown command /nothing") == 1
        screen.type("enter")
        screen.until(lambda: screen.text.count("unknown command /nothing") == 2, "expected it to be sent")


def test_what_was_typed_before_a_question_does_not_answer_it(chat_server: Server, tmp_path: Path) -> None:
    session_id = httpx.post(f"{chat_server.url}/sessions/new", timeout=PATIENCE).json()["session_id"]
    with chatting(chat_server.url, tmp_path, "--session", session_id) as screen:
        screen.type("/delete", "enter", "y", "enter")
        screen.until(lambda: screen.text.endswith("[y/N]"), "expected the question")
        # It comes to its own end, and so does what is asked after it.
        screen.type("n", "enter")
        screen.until(lambda: "Nothing was deleted." in screen.text, "expected nothing")
    assert httpx.get(f"{chat_server.url}/sessions/{session_id}", timeout=PATIENCE).status_code == 200


def test_all_commands_have_room_below_the_last_line(chat_server: Server, tmp_path: Path) -> None:
    for rows in (20, 8):
        with terminal(tmp_path, "chat", chat_server.url, size=(80, rows)) as screen:
            screen.prompt()
            screen.ask("/help", "Keys")
            screen.prompt()
            screen.type("/", "tab")
            last = list(COMMANDS.values())[: rows - 2][-1]
            screen.until(lambda last=last: last.summary in screen.text, "expected the menu")  # type: ignore[misc]
            screen.type("ctrl-c")
            screen.leave()


@pytest.mark.parametrize(("first", "common"), [("3", ""), ("4fb2", "4fb2")])
async def test_sessions_are_completed_by_their_titles(tmp_path: Path, first: str, common: str) -> None:
    """The first Tab lists the sessions, after what their ids have in common. The second one completes the id."""
    ids = [f"{first}5634cffa"[:8] + "-9c2e-4b1a-8d3f-0a1b2c3d4e5f", "4fb2d0e7-1111-4222-8333-444455556666"]
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        for session_id, message in zip(ids, ("short hello", "short \x1b[2J and a long title " * 2), strict=True):
            await server.app.state.conversations.store.create_session(session_id, ANYBODY, time.time(), limit=2)
            await server.say(message, session_id)
        screen.type("/OPEN ", "tab")
        prompt = f"new> /OPEN {common}".rstrip()
        await to_thread(
            screen.until,
            lambda: prompt in screen.lines and all(f" {each[:8]} " in screen.text for each in ids),
            "expected both sessions",
        )
        assert f" {ids[0][:8]}  short hello" in screen.text
        assert f" {ids[1][:8]}  short ␛[2J and a" in screen.text
        screen.type(ids[0][len(common) : 8], "tab")
        await to_thread(screen.until, lambda: "".join(screen.text.split()).endswith(ids[0]), "expected the whole id")
        screen.type("enter")
        await to_thread(screen.until, lambda: session_of(screen) == ids[0][:8], "expected the session")


def test_a_chat_can_be_suspended_at_its_prompt(chat_server: Server, tmp_path: Path) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with terminal(tmp_path, program=shell, size=(200, 24), PS1="shell$ ") as screen:
        screen.until(lambda: screen.text.endswith("shell$"), "expected the shell")
        screen.type(f"{' '.join(TAILRACE)} chat {chat_server.url}", "enter")
        screen.until(lambda: screen.text.endswith("new>"), "expected a prompt")
        screen.type("short", "\x1a")
        screen.until(lambda: screen.text.endswith("shell$"), "expected the shell")
        screen.type("echo $((6*7)); fg", "enter")
        screen.until(lambda: "\n42\n" in screen.text and screen.text.endswith("new> short"), "expected the chat")
        screen.type(" one", "enter")
        screen.until(lambda: "You wrote “short one”" in screen.text and screen.text.endswith(">"), "expected a reply")
        screen.type("ctrl-d")
        screen.until(lambda: screen.text.endswith("shell$"), "expected the shell")
        screen.type("ctrl-d")
        screen.end()


PASTED = "first line\r\tsecond line\r/third line"


def test_a_text_pasted_in_one_burst_is_one_message(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type("short " + PASTED)
        screen.until(lambda: screen.text.endswith("/third line"), "expected the whole text")
        assert "You" not in screen.text
        screen.type("enter")
        screen.until(
            lambda: "You wrote “short first line second line /third line”" in screen.text, "expected one reply"
        )
        screen.prompt()
        # The end of a line at the end of the text sends it.
        screen.type("short one\nand two\n")
        screen.until(lambda: "“short one and two”: 4 words" in screen.text, "expected one reply")
        screen.prompt()
        short = session_of(screen)
        screen.type("/new\r/info\r")
        screen.until(lambda: session_of(screen) != short and "State " in screen.text, "expected both commands")
        screen.prompt()


def test_a_long_text_pasted_in_one_burst_is_one_message(chat_server: Server, tmp_path: Path) -> None:
    text = "".join(f"short line {number} of a pasted text\r" for number in range(200))
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type(text)
        screen.until(lambda: "complete ·" in screen.text, "expected one reply")
        screen.prompt()
        assert screen.text.count("complete ·") == 1
    sessions = httpx.get(f"{chat_server.url}/sessions", timeout=PATIENCE).json()["sessions"]
    messages = httpx.get(f"{chat_server.url}/sessions/{sessions[0]['session_id']}", timeout=PATIENCE).json()["messages"]
    assert messages[0]["text"] == text.replace("\r", "\n").strip()

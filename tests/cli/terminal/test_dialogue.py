"""The chat in a real pseudo-terminal: what is typed, and what the screen shows."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from pathlib import Path

import httpx

from tailrace.cli.terminal.commands import COMMANDS, KEYS
from tailrace.cli.terminal.server import NO_KEY
from tailrace.testing.relay import Fault, relayed
from tests.cli.served import PATIENCE
from tests.cli.terminal.conftest import serve
from tests.cli.terminal.screen import TAILRACE, chatting, session_of, terminal
from tests.programs import Server

SUMMARY = r"complete · \d+ chunks · \d+\.\d s · {} context message"


def whole_id(server: Server, short: str) -> str:
    sessions = httpx.get(f"{server.url}/sessions", timeout=PATIENCE).json()["sessions"]
    return next(str(each["session_id"]) for each in sessions if each["session_id"].startswith(short))


def last_message(server: Server, short: str) -> dict[str, str]:
    session = httpx.get(f"{server.url}/sessions/{whole_id(server, short)}", timeout=PATIENCE).json()
    found: dict[str, str] = session["messages"][-1]
    return found


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def is_part(part: list[str], whole: list[str]) -> bool:
    """Whether the words stand there in their order."""
    rest = iter(whole)
    return all(word in rest for word in part)


def test_each_command_does_what_the_help_says(chat_server: Server, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    browser.chmod(0o700)
    with chatting(chat_server.url, tmp_path, BROWSER=f"{browser} %s") as screen:
        assert chat_server.url in screen.text
        assert session_of(screen) == "new"
        help_ = screen.ask("/help", "Ctrl-D")
        for command in COMMANDS.values():
            assert re.search(rf"^  {re.escape(command.usage)} +{re.escape(command.summary)}$", help_, re.MULTILINE)
        assert all(key in help_ for key, _ in KEYS)
        assert "no session yet" in screen.ask("/info", "yet")
        assert "Current session          none yet" in screen.ask("/stats", "none yet")

        first = screen.ask("short hello", "complete ·")
        assert re.search(r"^\w{8} · demo$", first, re.MULTILINE)
        assert "You wrote “short hello”: 2 words, received in order." in first
        assert re.search(SUMMARY.format(1), first)
        screen.ask("/stats", "Messages in it")
        short = session_of(screen)
        stats = screen.said
        for name, value in {
            "Session duration": r"\d.* s",
            "Messages sent": "1",
            "Successful streams": "1",
            "Stopped streams": "0",
            "Failed streams": "0",
            "Chunks received": r"\d+",
            "Average chunks a stream": r"\d+\.\d",
            "Sessions created": "1",
            "Average response time": r"\d+\.\d\d s",
            "Current session": rf"{short}-.*",
            "Messages in it": "2",
        }.items():
            assert re.search(rf"^  {name} +{value}$", stats, re.MULTILINE), name
        info = screen.ask("/info", "State")
        for name, value in {
            "Session": rf"{short}-.*",
            "Model": "demo",
            "Messages": "2",
            "  yours": "1",
            "  replies": "1",
            "Duration": ".* s",
            "Created": r"\d{4}-\d\d-\d\d \d\d:\d\d",
            "State": "idle",
        }.items():
            assert re.search(rf"^  {name} +{value}$", info, re.MULTILINE), name
        assert re.search(rf"^\* {short} +2  .*  short hello$", screen.ask("/sessions", "short hello"), re.MULTILINE)
        server = screen.ask("/server", "Average response time")
        assert re.search(r"^  Model +demo$", server, re.MULTILINE)
        assert re.search(r"^  Active streams +0$", server, re.MULTILINE)
        assert re.search(r"^  Status +healthy$", screen.ask("/health", "Uptime"), re.MULTILINE)

        assert f"{chat_server.url}/docs" in screen.ask("/docs", "/docs\n")
        assert f"{chat_server.url}/demo" in screen.ask("/demo", "/demo\n")
        screen.ask("/new", "New session", " · demo")
        assert opened.read_text().split() == [f"{chat_server.url}/docs", f"{chat_server.url}/demo"]
        screen.until(lambda: session_of(screen) not in (short, "new"), "expected another session")
        new = session_of(screen)
        assert f"\n* {new}" in screen.ask("/sessions", short)
        assert f"\n  {short}" in screen.said
        assert "Continuing" in screen.ask(f"/open {short}", "2 messages, short hello.")

        assert "Cleared the history" in screen.ask("/reset", "Cleared the history")
        assert re.search(r"^  Messages +0$", screen.ask("/info", "State"), re.MULTILINE)
        screen.ask("/delete", "Delete session", "[y/N]")
        screen.type("n", "enter")
        screen.wait("Nothing was deleted.")
        screen.ask("/delete", "Delete session", "[y/N]")
        screen.type("y", "enter")
        screen.wait("Deleted session", "\nnew>")
        assert f"no session, {short}" not in screen.text
        assert "none begins" in screen.ask(f"/info {short}", "none begins")
        screen.ask(f"/delete {new}", "[y/N]")
        screen.type("ctrl-c")
        screen.wait("Nothing was deleted.")

        assert "/help lists the commands, // sends it" in screen.ask("/nothing", "unknown command /nothing;")
        assert "did you mean /health?" in screen.ask("/helth", "unknown command /helth;")
        assert "expected /quit alone" in screen.ask("/quit now", "alone")
        refusal = "expected the beginning of a session's id (/sessions lists them) after /open"
        assert refusal in screen.ask("/open", "expected")
        screen.send("/clear")
        screen.until(lambda: screen.screen.display[0].startswith("new>"), "expected a clear screen")
        screen.send("/quit")
        assert screen.end() == 0


def test_keys(chat_server: Server, tmp_path: Path) -> None:
    short = httpx.post(f"{chat_server.url}/sessions/new", timeout=PATIENCE).json()["session_id"][:8]
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type("/he", "tab")
        screen.until(lambda: COMMANDS["health"].summary in screen.text, "expected what there is to choose from")
        screen.type("a", "tab")
        screen.until(lambda: "new> /health" in screen.text, "expected the completion of a command")
        screen.type("ctrl-c")
        screen.until(lambda: screen.text.endswith("> /health\nnew>"), "expected to stay")
        screen.type(f"/open {short[:6]}", "tab")
        screen.until(lambda: re.search(rf"/open {short}-\S{{27}}", screen.text) is not None, "expected an id")
        screen.type("enter")
        screen.until(lambda: session_of(screen) == short, "expected the session")
        screen.type("short one", "alt-enter", "and two")
        screen.until(lambda: "short one\n          and two" in screen.text, "expected two lines")
        screen.send("")
        screen.until(lambda: "complete ·" in screen.text, "expected a reply to both lines")
        assert "You wrote “short one and two”: 4 words" in screen.text
        screen.type("up", "up", "up")  # the second only goes to the first line
        screen.until(lambda: screen.text.count("/open") == 2, "expected what was typed before")
        screen.type("ctrl-c", "ctrl-d")
        assert screen.end() == 0
    history = tmp_path / "tailrace" / "history"
    assert history.stat().st_mode & 0o777 == 0o600
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type("up", "up", "up")  # the second only goes to the first line
        screen.until(lambda: "/open" in screen.text, "expected the history of the last time")
        screen.type("ctrl-c")


def test_ctrl_c_stops_the_model_and_keeps_what_there_is(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path, NO_COLOR="1") as screen:
        screen.ask("a long one", "You wrote “a long one”")
        screen.type("typed meanwhile", "ctrl-c")
        screen.wait("stopped ·", "the text so far is kept", "> typed meanwhile")
        stored = last_message(chat_server, session_of(screen))
        assert stored["state"] == "stopped"
        assert is_part(words(stored["text"].replace("`", ""))[:8], words(screen.said))
        screen.type("ctrl-c")
        screen.ask("//fail", "failed ·")
        screen.prompt()
        failed = screen.said
        assert "the demo model fails, because /fail asks for it (model_error)" in " ".join(failed.split())
        assert "complete ·" in screen.ask("short one", "complete ·")
        # Neither colours, nor any other escape than those that move, erase, or make bold and dim.
        assert set(re.findall(r"\x1b\[[\d;]*[34]\dm", screen.raw)) == set()


def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path) as screen:
        screen.ask("a long one", "You wrote")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 143
        assert screen.echoes


def test_nothing_is_lost_when_the_terminal_is_resized(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path, columns=100) as screen:
        screen.ask("a long story", "You wrote")
        for columns, rows in [(40, 24), (90, 10), (25, 24), (61, 24)]:
            before = len(screen.raw)
            screen.resize(columns, rows)
            screen.until(lambda before=before: len(screen.raw) > before + 2000, "expected more")  # type: ignore[misc]
        screen.wait("complete ·")
        screen.prompt()
        stored = last_message(chat_server, session_of(screen))["text"]
    text = re.sub(r"^\|?[-:|]+\|$|^\d+\.|`|\*|\[.\]", "", stored, flags=re.MULTILINE)
    # What is printed just as the terminal becomes narrower is cut at its edge, inside a word as well.
    assert "".join(words(text)[:20]) in "".join(words(screen.said))
    for line in ("Order before time", "Before you blame the network", "wire", "await log.grown()"):
        assert (line in screen.said) == (line in stored)
    assert screen.said.count("I am the built-in demo model") == 1


async def test_a_lost_connection_is_said_and_goes_on(chat_server: Server, tmp_path: Path) -> None:
    async with relayed(chat_server.url) as relay:
        with terminal(tmp_path, "chat", relay.url) as screen:
            await asyncio.to_thread(screen.greeted)
            relay.next(Fault(after=3000, how="reset"))
            await asyncio.to_thread(screen.ask, "a table and a list of code", "complete ·")
            said = screen.said
            await asyncio.to_thread(screen.prompt)
            assert said.count("connection lost; reconnecting …") == 1
            stored = last_message(chat_server, session_of(screen))
            assert stored["state"] == "complete"
            await asyncio.to_thread(screen.ask, "/stats", "Messages in it")
            assert re.search(r"^  Reconnections +1$", screen.said, re.MULTILINE)


def test_what_is_typed_may_be_no_text(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path) as screen:
        screen.type("short \udcff one", "enter")
        screen.until(lambda: "“short ? one”" in screen.text and "complete ·" in screen.text)
        screen.prompt()
        screen.type("up")
        screen.until(lambda: re.search(r"> short .+ one$", screen.text) is not None, "expected what was typed")
        screen.type("ctrl-c")


def test_a_busy_session_shows_the_running_reply_and_keeps_the_message(chat_server: Server, tmp_path: Path) -> None:
    session_id = httpx.post(f"{chat_server.url}/sessions/new", timeout=PATIENCE).json()["session_id"]
    body = {"message": "something long", "session_id": session_id}

    def begin() -> None:
        with httpx.stream("POST", f"{chat_server.url}/chat/stream", json=body, timeout=PATIENCE) as response:
            next(response.iter_bytes())

    with chatting(chat_server.url, tmp_path, "--session", session_id) as screen:
        screen.until(lambda: "Continuing" in screen.text, "expected the session")
        begin()
        screen.ask("and I?", "generating another reply", "You wrote “something long”")
        screen.type("ctrl-c")
        # The message is in the prompt again, and only has to be sent.
        screen.until(lambda: screen.text.endswith("> and I?"), "expected the message that was not sent")
        screen.type("enter")
        screen.until(lambda: "You asked “and I?”" in screen.text and "complete ·" in screen.text, "expected a reply")
        screen.prompt()
        begin()
        screen.ask(f"/open {session_id}", "Continuing", "You sent this before")
        screen.type("ctrl-c")
        screen.wait("stopped ·")
        httpx.delete(f"{chat_server.url}/sessions/{session_id}", timeout=PATIENCE)
        screen.send("short hello")
        deleted = "this session was deleted: send your message again to begin a new one"
        # Not `ask`: the message is in the prompt again, and its text begins behind it.
        screen.until(lambda: deleted in screen.text, "expected the session to be gone")
        screen.until(lambda: screen.text.endswith("new> short hello"), "expected the message once more")
        screen.type("enter")
        screen.wait("You wrote “short hello”", "complete ·")
        screen.prompt()
        assert session_of(screen) not in ("new", session_id[:8])


def test_escapes_in_a_reply_are_only_shown(chat_server: Server, tmp_path: Path) -> None:
    message = "short \x1b]0;title\x07\x1b[2J\x9b31m &#27;[31m \u202eno"
    with terminal(tmp_path, "chat", chat_server.url, "--message", message) as screen:
        assert screen.end() == 0
        assert "␛]0;title␇␛[2J�31m" in screen.text
        assert "\x1b]" not in screen.raw
        assert "\x1b[2J" not in screen.raw
        assert not {"\x9b", "\x07", "\u202e"} & set(screen.raw)


def test_a_terminal_that_cannot_move_gets_plain_text(chat_server: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "chat", chat_server.url, "--message", "short **one**", TERM="dumb") as screen:
        assert screen.end() == 0
        assert "**one**" in screen.text
        assert "\x1b" not in screen.raw
    with chatting(chat_server.url, tmp_path, TERM="dumb") as screen:
        screen.ask("short **two**", "complete ·")
        assert re.search(r"^\w{8} · demo\nYou wrote “short \*\*two\*\*”", screen.said, re.MULTILINE)
        screen.prompt()
        screen.ask("/delete", "[y/N]")
        screen.type("y", "enter")
        screen.wait("Deleted session")
        screen.leave()
        assert "\x1b" not in screen.raw


def test_a_reply_goes_on_below_what_came_while_it_was_suspended(chat_server: Server, tmp_path: Path) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with terminal(tmp_path, program=shell, PS1="shell$ ") as screen:
        screen.type(f"{shlex.join(TAILRACE)} chat {chat_server.url}", "enter")
        screen.until(lambda: screen.text.endswith("new>"), "expected a prompt")
        screen.type("a long one", "enter")
        screen.until(lambda: "You wrote" in screen.text, "expected a reply")
        screen.type("\x1a")
        screen.until(lambda: screen.text.endswith("shell$"), "expected the shell")
        screen.type("fg", "enter")
        screen.until(lambda: "stream" in screen.text.partition("$ fg")[2], "expected more")
        screen.type("typed", "ctrl-c")
        screen.until(lambda: screen.text.endswith("> typed"), "expected what was typed in the reply")
        assert screen.text.count("You wrote “a long one”") <= 2
        screen.type("ctrl-c", "ctrl-d")
        screen.until(lambda: screen.text.endswith("shell$"), "expected the shell")
        screen.type("ctrl-d")
        screen.end()


def test_a_narrow_terminal_breaks_between_words(chat_server: Server, tmp_path: Path) -> None:
    with chatting(chat_server.url, tmp_path, columns=40) as screen:
        assert "\n/help lists the commands, Alt-Enter\nstarts a new line, Ctrl-D leaves.\n" in screen.text


def test_a_server_that_requires_a_key_says_so_at_the_start(tmp_path: Path) -> None:
    with serve(tmp_path, TAILRACE_API_KEYS="one-key") as server:
        with terminal(tmp_path, "chat", server.url) as screen:
            screen.until(lambda: f"\n{NO_KEY}\nnew>" in screen.text, "expected what is wrong")
            screen.leave()
        with chatting(server.url, tmp_path, "--key", "one-key"):
            pass

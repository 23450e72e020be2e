"""Commands whose server does not answer, or not as they would like."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio import StreamReader, StreamWriter, to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tailrace.cli.terminal.commands import LISTED
from tests.chat.api import talking
from tests.cli.terminal.screen import chatting_with, session_of, terminal
from tests.raw import BOUND

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Silent:
    """A server that answers nothing."""

    def __init__(self) -> None:
        self.url = ""
        self._is_greeted = False
        self._asking: asyncio.Queue[tuple[str, StreamWriter]] = asyncio.Queue(8)

    async def connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        line = await reader.readline()  # empty if the client only looks whether a server is there
        if line.startswith(b"GET /stats ") and not self._is_greeted:
            self._is_greeted = True  # the first of these is for the greeting
        elif line:
            await self._asking.put((line.decode(), writer))
        await reader.read()
        writer.close()

    async def asked(self, path: str) -> StreamWriter:
        """Wait for a request; its connection."""
        async with asyncio.timeout(BOUND):
            line, writer = await self._asking.get()
        assert line.startswith(f"GET {path}"), line
        return writer

    async def die(self, path: str) -> None:
        """Be gone when the request comes, and when it comes again."""
        for _ in range(2):
            (await self.asked(path)).close()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    found = Silent()
    server = await asyncio.start_server(found.connect, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield found


async def test_a_server_that_says_nothing_keeps_nobody(tmp_path: Path) -> None:
    async with silent() as server, chatting_with(server.url, tmp_path, greets=False) as screen:
        screen.send("/health")
        await server.asked("/health")
        await to_thread(screen.wait, "waiting for the server; Ctrl-C cancels")
        screen.type("ctrl-c")
        await to_thread(screen.wait, "Cancelled.")
        await to_thread(screen.prompt)
        screen.send("/server")
        await server.die("/stats")
        await to_thread(screen.wait, "no response from the server: ")
        await to_thread(screen.prompt)

        screen.type("/open ", "tab")
        await server.die("/sessions")
        for key in "0123456789":
            screen.type(key)
            await to_thread(screen.until, lambda key=key: screen.text.endswith(key))  # type: ignore[misc]
        screen.type("tab")
        await server.asked("/sessions")
        # Leaving does not wait for it.
        screen.type("ctrl-c")


async def test_more_sessions_than_are_listed(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        for _ in range(LISTED + 1):
            newest = await server.post("/sessions/new")
        await to_thread(screen.ask, "/sessions", f"… and more; these are the {LISTED} that were used last.")
        rows = re.findall(r"^  (\w{8}) +0  \S+ \S+  0\.0 s +–$", screen.said, re.MULTILINE)
        assert (len(rows), rows[0]) == (LISTED, newest["session_id"][:8])
        many = newest["session_id"][0]
        await to_thread(screen.ask, f"/info {many}", "expected the beginning of one session's id, but")
        assert re.search(rf"but \d+ begin with '{many}'", screen.said)


async def test_the_session_of_the_command_line_is_not_there(tmp_path: Path) -> None:
    async with (
        talking.chatting(tmp_path) as server,
        chatting_with(server.url, tmp_path, "--session", UNKNOWN) as screen,
    ):
        assert "this session does not exist" in screen.text
        assert session_of(screen) == "new"
        await to_thread(screen.ask, "/sessions", "No sessions yet: write a message to begin one.")
        await to_thread(screen.ask, "hello", "complete ·")


async def test_a_session_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        await to_thread(screen.ask, "/new", "New session")
        await to_thread(screen.prompt)
        current = session_of(screen)
        for line, answer in {
            f"/open {UNKNOWN}": "this session does not exist",
            "/open nonsense-nonsense-nonsense-nonsense-": "but none begins with",
            "/open": "expected the beginning of a session's id",
        }.items():
            await to_thread(screen.ask, line, answer, f"\n{current}>")
            await to_thread(screen.prompt)
        other = (await server.post("/sessions/new"))["session_id"]
        for written in (other.replace("-", ""), other.upper()):
            await to_thread(screen.ask, f"/open {written}", "Continuing", f"\n{other[:8]}>")
            await to_thread(screen.ask, f"/open {current}", "Continuing", f"\n{current}>")


async def test_sessions_are_renamed_and_searched(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        await to_thread(screen.ask, "/rename Fruit", "no session yet")
        await to_thread(screen.ask, "/rename", "expected a title after /rename")
        await to_thread(screen.ask, "/new", "New session")
        await to_thread(screen.ask, "/rename Sweet fruit", "is now called Sweet fruit.")
        await to_thread(screen.ask, "/search FRUIT", "1 session")
        await to_thread(screen.ask, "/search vegetables", "No session has this text")
        assert [each["title"] for each in (await server.get("/sessions"))["sessions"]] == ["Sweet fruit"]


async def test_a_session_that_others_have_deleted_is_left(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        for command, answer in {
            "/info": "this session does not exist",
            "/sessions": "No sessions yet: write a message to begin one.",
            "/stats": "unknown: this session does not exist",
        }.items():
            await to_thread(screen.ask, "/new", "New session")
            for session in (await server.get("/sessions"))["sessions"]:
                await server.delete(f"/sessions/{session['session_id']}")
            await to_thread(screen.ask, command, answer, "\nnew>")


async def test_what_needs_no_server_does_not_wait_for_one(tmp_path: Path) -> None:
    async with silent() as server, chatting_with(server.url, tmp_path, greets=False) as screen:
        await to_thread(screen.ask, "/help", "Keys")
        await to_thread(screen.ask, "/stats", "none yet")
        with terminal(tmp_path, "chat", server.url) as other:
            await to_thread(other.prompt)
            other.send("/EXIT")
            assert await to_thread(other.end) == 0


@pytest.mark.parametrize("columns", [40, 80])
async def test_no_line_is_wider_than_the_terminal(columns: int, tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server:
        begun = await server.say("short, but with a title that is longer than this line")
        session_id = begun[0]["session_id"]
        said = {}
        with terminal(tmp_path, "chat", server.url, "--session", session_id, size=(columns, 24)) as screen:
            await to_thread(screen.prompt)
            for command, last in {
                "/help": "Ctrl-D",
                "/stats": "Messages in it",
                "/info": "State",
                "/sessions": "…",
                "/server": "Average response time",
                "/health": "Uptime",
            }.items():
                await to_thread(screen.ask, command, last)
                await to_thread(screen.prompt)
                said[command] = screen.said.splitlines()[1:-1]
            await to_thread(screen.leave)
    for command, lines in said.items():
        assert max(map(len, lines)) < columns, command
        # What goes on in a second line is indented, so a line that is not has been broken by the terminal.
        assert {line for line in lines if not line.startswith(("  ", "* "))} <= {lines[0], "Keys"}, command
    for command in ("/stats", "/info"):
        assert any(line.endswith(f" {session_id}") for line in said[command])
    assert len(said["/sessions"]) == (4 if columns == 40 else 3)


async def test_only_yes_deletes(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path) as screen:
        await to_thread(screen.ask, "/new", "New session")
        await to_thread(screen.prompt)
        current = session_of(screen)
        other = (await server.post("/sessions/new"))["session_id"]
        for answer in (["enter"], ["n", "enter"], ["yellow", "enter"], ["yes, no", "enter"], ["ctrl-c"], ["ctrl-d"]):
            await to_thread(screen.ask, f"/delete {other}", f"Delete session {other[:8]} with 0 messages? [y/N]")
            screen.type(*answer)
            await to_thread(screen.wait, "Nothing was deleted.", f"\n{current}>")
        assert (await server.get("/sessions"))["total"] == 2
        await to_thread(screen.ask, f"/delete {other}", "[y/N]")
        screen.type(" Yes ", "enter")
        await to_thread(screen.wait, "Deleted session", f"\n{current}>")
        assert [each["session_id"][:8] for each in (await server.get("/sessions"))["sessions"]] == [current]


async def test_what_was_typed_while_the_server_was_asked_deletes_nothing(tmp_path: Path) -> None:
    at = "2026-11-21T15:43:48Z"
    found = {"session_id": UNKNOWN, "message_count": 2, "created": at, "updated": at, "model": "demo", "messages": []}
    async with silent() as server, chatting_with(server.url, tmp_path, greets=False) as screen:
        screen.send(f"/delete {UNKNOWN}")
        asking = await server.asked(f"/sessions/{UNKNOWN}")
        screen.type("y", "enter")
        body = json.dumps(found)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        asking.write((head + body).encode())
        await to_thread(screen.wait, "Delete session 00000000 with 2 messages? [y/N]")
        screen.type("n", "enter")
        await to_thread(screen.wait, "Nothing was deleted.")


async def test_without_a_browser_the_address_is_what_there_is(tmp_path: Path) -> None:
    path = str(tmp_path)
    async with (
        talking.chatting(tmp_path) as server,
        chatting_with(server.url, tmp_path, PATH=path, DISPLAY="", WAYLAND_DISPLAY="") as screen,
    ):
        await to_thread(screen.ask, "/docs", f"{server.url}/docs", "Could not open a browser here")

"""Commands whose server does not answer, or not as they would like."""

from __future__ import annotations

import asyncio
import re
from asyncio import StreamReader, StreamWriter, to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tailrace.cli.terminal.commands import LISTED
from tests.chat.api import talking
from tests.cli.terminal.screen import chatting_with, session_of
from tests.raw import BOUND

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Silent:
    """A server that answers nothing."""

    def __init__(self) -> None:
        self.url = ""
        self._asking: asyncio.Queue[tuple[str, StreamWriter]] = asyncio.Queue(8)

    async def connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        if line := await reader.readline():  # there is none of who only looks whether a server is there
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
    async with silent() as server, chatting_with(server.url, tmp_path) as screen:
        screen.send("/health")
        await server.asked("/health")
        screen.type("ctrl-c")
        await to_thread(screen.wait, "Given up.")
        await to_thread(screen.prompt)
        screen.send("/server")
        await server.die("/stats")
        await to_thread(screen.wait, "the server gives no answer: ")
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
        rows = re.findall(r"^  (\w{8}) +0  \S+ \S+  –$", screen.said, re.MULTILINE)
        assert (len(rows), rows[0]) == (LISTED, newest["session_id"][:8])
        many = newest["session_id"][0]
        await to_thread(screen.ask, f"/info {many}", "expected the beginning of one session's id, but")
        assert re.search(rf"but \d+ begin with '{many}'", screen.said)


async def test_the_session_of_the_command_line_is_not_there(tmp_path: Path) -> None:
    async with (
        talking.chatting(tmp_path) as server,
        chatting_with(server.url, tmp_path, "--session", UNKNOWN) as screen,
    ):
        assert "there is no such session (any more): /new begins another, /sessions lists them" in screen.text
        assert session_of(screen) == UNKNOWN[:8]
        await to_thread(screen.ask, "/sessions", "There are no sessions yet: write something, and one begins.")
        await to_thread(screen.ask, "/stats", "Messages in it")
        assert "unknown: there is no such session" in " ".join(screen.said.split())
        await to_thread(screen.ask, "/new", "New session")


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


async def test_without_a_browser_the_address_is_what_there_is(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    async with talking.chatting(tmp_path) as server, chatting_with(server.url, tmp_path, **nowhere) as screen:
        await to_thread(screen.ask, "/docs", f"{server.url}/docs", "There is no browser here")

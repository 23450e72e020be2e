"""The whole screen after a reply, line by line: all of it is there, once, and no escape is left."""

from __future__ import annotations

import re
import textwrap
from asyncio import to_thread
from pathlib import Path

import httpx

from tests.chat.api import talking
from tests.chat.api.talking import Hold, Scripted
from tests.cli.served import PATIENCE
from tests.cli.terminal.halting import serving_halting
from tests.cli.terminal.screen import Terminal, chatting, chatting_with, session_of
from tests.serving import free_port

REPLY = """\
# Logs

A log is **append-only**: what was written stays as it is, and what comes next is written after it, at the end.

- one reader
- and *another*, \
"""
REST = """\
which is at its own place in the same log and can come back

```python
log.append({"n": 1})  # \u001b[31m
```

| wire | ends |
|------|------|
| SSE  | `done` |

The end.
"""


BEGUN = [
    "tailrace chat · URL",
    "/help lists the commands, Alt-Enter starts a new line, Ctrl-D leaves.",
    "connected · MODEL",
    "new> hello",
]
WIDE = [
    "SESSION · scripted",
    "",
    "Logs",
    "",
    "A log is append-only: what was written stays as it is, and what comes next is",
    "written after it, at the end.",
    "",
    "• one reader",
]
ENDED = [
    "",
    "```python",
    'log.append({"n": 1})  # ␛[31m',
    "```",
    "",
    "wire   ends",
    "───────────",
    "SSE    done",
    "",
    "The end.",
    "",
    "complete · FACTS",
    "",
    "SESSION>",
]
LOST = [
    "SESSION · halting",
    "",
    "Logs",
    "",
    "A log is append-only.",
    "",
    "connection lost; reconnecting …",
    "",
    "the server began this stream again; continuing with what it has kept …",
    "",
    "• one reader",
    "• and *ano",
    "",
    "failed · FACTS: the server could not",
    "complete the reply (interrupted)",
    "",
    "SESSION>",
]


def shown(screen: Terminal, url: str) -> list[str]:
    """The lines, with placeholders for what is another each time."""
    text = screen.text.replace(url, "URL").replace(session_of(screen), "SESSION")
    text = re.sub("^connected · .*", "connected · MODEL", text, flags=re.MULTILINE)
    return re.sub(r"\d+ chunks? · \d+\.\d s · \d context messages?", "FACTS", text).split("\n")


async def test_a_reply_in_pieces(tmp_path: Path) -> None:
    pieces = re.findall(r".{1,7}", REPLY + REST, re.DOTALL)
    async with (
        talking.chatting(tmp_path, Scripted(*pieces)) as server,
        chatting_with(server.url, tmp_path) as screen,
    ):
        await to_thread(screen.ask, "hello", "complete ·")
        await to_thread(screen.prompt)
        item = ["• and another, which is at its own place in the same log and can come back"]
        assert shown(screen, server.url) == [*BEGUN, *WIDE, *item, *ENDED]


async def test_a_reply_while_the_terminal_becomes_narrower(tmp_path: Path) -> None:
    hold = Hold()
    async with (
        talking.chatting(tmp_path, Scripted(REPLY, hold, REST)) as server,
        chatting_with(server.url, tmp_path) as screen,
    ):
        await to_thread(screen.ask, "hello", "\n- and *another*,")
        screen.resize(50, 24)
        hold.release.set()
        await to_thread(screen.wait, "complete ·")
        await to_thread(screen.prompt)
        item = ["• and another, which is at its own place in the", "  same log and can come back"]
        assert shown(screen, server.url) == [*wrapped([*BEGUN, *WIDE], 50), *item, *ENDED]


PARAGRAPH = "One two three four five six seven eight nine ten. " * 7


async def test_a_paragraph_while_the_terminal_becomes_narrower(tmp_path: Path) -> None:
    hold = Hold()
    async with (
        talking.chatting(tmp_path, Scripted(f"Before.\n\n{PARAGRAPH}", hold, "The end.")) as server,
        chatting_with(server.url, tmp_path) as screen,
    ):
        await to_thread(screen.ask, "hello", "Before.", "ten.")
        await to_thread(screen.wait, "generating · ")
        screen.resize(60, 24)
        hold.release.set()
        await to_thread(screen.wait, "complete ·")
        await to_thread(screen.prompt)
        paragraph = [*textwrap.wrap(f"{PARAGRAPH}The end.", 59), "", "complete · FACTS", "", "SESSION>"]
        before = [*BEGUN, "SESSION · scripted", "", "Before.", ""]
        assert shown(screen, server.url) == [*wrapped(before, 60), *paragraph]


def wrapped(lines: list[str], columns: int) -> list[str]:
    """The lines as a terminal wraps them that has become narrower."""
    return [line[begin : begin + columns].rstrip() for line in lines for begin in range(0, len(line) or 1, columns)]


def test_a_server_that_is_killed_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    # With 72 columns, the last line is wrapped at the same place whether the reply took nine seconds or ten.
    with serving_halting(tmp_path, port) as server, chatting(server.url, tmp_path, columns=72) as screen:
        screen.ask("hello", "\n- and *ano")
        server.process.kill()
        screen.wait("connection lost; reconnecting …")
        with serving_halting(tmp_path, port) as again:
            # A client whose server takes long to start waits up to half a minute before it tries again.
            screen.wait("failed ·", patience=3 * PATIENCE)
            screen.prompt()
            assert shown(screen, server.url) == [*BEGUN, *LOST]
            assert re.search(r"^failed · 1 chunk · .* · 1 context message: ", screen.said, re.MULTILINE)
            screen.ask("and now?", "and another", "complete ·")
            [session] = httpx.get(f"{again.url}/sessions", timeout=PATIENCE).json()["sessions"]
            messages = httpx.get(f"{again.url}/sessions/{session['session_id']}", timeout=PATIENCE).json()["messages"]
            assert [message["state"] for message in messages if message["role"] == "assistant"] == [
                "interrupted",
                "complete",
            ]
        gone = screen.ask("/health", "no response from the server")
        assert "\nno response from the server: no connection\n" in f"{gone}\n"
        assert session_of(screen) == session["session_id"][:8]

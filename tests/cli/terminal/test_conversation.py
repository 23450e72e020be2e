"""Replies that are stopped, left or lost, in a real pseudo-terminal and through a relay that a test cuts."""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tailrace.testing import Fault, Relay, relayed
from tests.chat.api import talking
from tests.chat.api.talking import Chat, Hold, Scripted, within
from tests.cli.terminal.screen import Terminal, chatting_with, session_of

STALLED = Fault(after=0, how="stall")


@dataclass
class Talk:
    """A chat, the server that it talks with, and the relay in between."""

    screen: Terminal
    server: Chat
    relay: Relay


@asynccontextmanager
async def talk(folder: Path, model: Scripted) -> AsyncIterator[Talk]:
    async with (
        talking.chatting(folder, model) as server,
        relayed(server.url) as relay,
        chatting_with(relay.url, folder) as screen,
    ):
        yield Talk(screen, server, relay)


async def test_a_second_ctrl_c_leaves_a_reply_that_cannot_be_stopped(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("The beginning and ", hold, "the end.")) as chat:
        screen = chat.screen
        await to_thread(screen.ask, "hello", "The beginning and")
        chat.relay.refuse()
        screen.type("ctrl-c")
        await to_thread(screen.wait, "cannot stop the model: the server gives no answer")
        screen.type("ctrl-c")
        await to_thread(screen.wait, "left · ", "/open ", " reads on")
        chat.relay.refuse(False)
        # The model went on, so that the next message reads what it writes.
        await to_thread(screen.ask, "more", "is answering already", "The beginning and")
        hold.release.set()
        # What was not sent is in the prompt again.
        whole = re.compile(r"The beginning and the end\..*complete · .*> more$", re.DOTALL)
        await to_thread(screen.until, lambda: whole.search(screen.text) is not None)
        screen.type("ctrl-c")
        await to_thread(screen.ask, "/stats", "Messages in it")
        for name in ("Messages sent", "Stopped streams", "Successful streams"):
            assert re.search(rf"^  {name} +1$", screen.said, re.MULTILINE), name


async def test_ctrl_c_before_a_reply_has_begun(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat:
        screen = chat.screen
        chat.relay.always(STALLED)
        await to_thread(screen.send, "left")
        await within(hold.reached)  # so the message has arrived
        screen.type("ctrl-c")
        await to_thread(screen.wait, "stopping as soon as the reply begins; Ctrl-C again leaves it")
        screen.type("ctrl-c")
        await to_thread(screen.until, lambda: screen.text.endswith("new> left"))
        assert "\nleft before it began; your message may have arrived: sent again, it counts once\n" in screen.text
        screen.type("ctrl-c")

        hold.reached.clear()
        await to_thread(screen.send, "stopped")
        await within(hold.reached)
        screen.type("ctrl-c")
        await to_thread(screen.wait, "stopping as soon as the reply begins")
        chat.relay.always(Fault())
        chat.relay.cut()
        await to_thread(screen.wait, "no connection, trying again …", "One.", "stopped · ")
        assert screen.said.count("no connection") == 1
        await to_thread(screen.prompt)
        [newest, _] = (await chat.server.get("/sessions"))["sessions"]
        assert await chat.server.replies(newest["session_id"]) == [("One. ", "stopped")]
        assert session_of(screen) == newest["session_id"][:8]
        hold.release.set()  # of the first one, which nobody has stopped

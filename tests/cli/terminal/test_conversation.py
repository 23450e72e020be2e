"""Replies that are stopped, left or lost, in a real pseudo-terminal and through a relay that a test cuts."""

from __future__ import annotations

import re
from asyncio import Semaphore, StreamReader, StreamWriter, timeout, to_thread
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tailrace.testing import Fault, Relay, relayed
from tests.chat.api import talking
from tests.chat.api.talking import Chat, Hold, Scripted, begun, within
from tests.cli.served import PATIENCE
from tests.cli.terminal.screen import Terminal, chatting_with, session_of
from tests.client.speaking import SSE_HEAD, saying, speaking, until_left

STALLED = Fault(after=0, how="stall")


@dataclass
class Talk:
    """A chat, the server that it talks with, and the relay in between."""

    screen: Terminal
    server: Chat
    relay: Relay
    model: Scripted


@asynccontextmanager
async def talk(folder: Path, model: Scripted) -> AsyncIterator[Talk]:
    async with (
        talking.chatting(folder, model) as server,
        relayed(server.url) as relay,
        chatting_with(relay.url, folder) as screen,
    ):
        relay.cut()  # so that no request can use the connection of the greeting
        yield Talk(screen, server, relay, model)


async def test_a_second_ctrl_c_leaves_a_reply_that_cannot_be_stopped(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("The beginning and ", hold, "the end.")) as chat:
        screen = chat.screen
        await to_thread(screen.ask, "hello", "The beginning and")
        chat.relay.refuse()
        screen.type("ctrl-c")
        await to_thread(screen.wait, "cannot stop the model: no response from the server")
        screen.type("ctrl-c")
        await to_thread(screen.wait, "left · ", "/open ", " continues it")
        chat.relay.refuse(False)
        # The model went on, so that the next message reads what it writes.
        await to_thread(screen.ask, "more", "is generating another reply", "The beginning and")
        hold.release.set()
        # What was not sent is in the prompt again.
        whole = re.compile(r"The beginning and the end\..*complete · .*> more$", re.DOTALL)
        await to_thread(screen.until, lambda: whole.search(screen.text) is not None)
        screen.type("ctrl-c")
        await to_thread(screen.ask, "/stats", "Messages in it")
        for name in ("Messages sent", "Stopped streams", "Successful streams"):
            assert re.search(rf"^  {name} +1$", screen.said, re.MULTILINE), name


async def test_ctrl_c_before_a_reply_has_begun_stops_it_later(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat:
        screen = chat.screen
        chat.relay.always(STALLED)
        await to_thread(screen.send, "hello")
        await within(hold.reached)  # so the message has arrived
        screen.type("ctrl-c")
        await to_thread(screen.wait, "stopping when the reply begins; press Ctrl-C again to leave it")
        chat.relay.always(Fault())
        chat.relay.cut()
        await to_thread(screen.wait, "no connection; trying again …", "One.", "stopped · ")
        assert screen.said.count("no connection") == 1
        await to_thread(screen.prompt)
        [session] = (await chat.server.get("/sessions"))["sessions"]
        assert await chat.server.replies(session["session_id"]) == [("One. ", "stopped")]
        assert session_of(screen) == session["session_id"][:8]


async def leave_before_the_reply(chat: Talk, hold: Hold) -> None:
    """Send a message that arrives, and whose reply does not; the message is at the prompt again."""
    screen = chat.screen
    chat.relay.always(STALLED)
    await to_thread(screen.send, "hello")
    await within(hold.reached)
    screen.type("ctrl-c")
    await to_thread(screen.wait, "stopping when the reply begins; press Ctrl-C again to leave it")
    screen.type("ctrl-c")
    await to_thread(screen.until, lambda: screen.text.endswith("new> hello"))
    assert "\nleft before the reply began; your message may have arrived: resending is safe\n" in screen.text
    chat.relay.always(Fault())
    hold.release.set()


async def test_a_message_that_may_have_arrived_is_asked_once(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat:
        await leave_before_the_reply(chat, hold)
        screen = chat.screen
        screen.type("enter")
        await to_thread(screen.until, lambda: "One." in screen.text and "complete ·" in screen.text)
        await to_thread(screen.prompt)
        [session] = (await chat.server.get("/sessions"))["sessions"]
        assert await chat.server.replies(session["session_id"]) == [("One. ", "complete")]
        assert session_of(screen) == session["session_id"][:8]
        await to_thread(screen.ask, "/stats", "Messages in it")
        for name, value in {"Messages sent": 1, "Stopped streams": 0, "Sessions created": 1}.items():
            assert re.search(rf"^  {name} +{value}$", screen.said, re.MULTILINE), name


async def test_another_message_is_another_question(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat:
        await leave_before_the_reply(chat, hold)
        chat.screen.type(", you", "enter")
        await to_thread(chat.screen.until, lambda: "complete ·" in chat.screen.text)
        assert [asked[-1].text for asked in chat.model.asked] == ["hello", "hello, you"]


async def test_a_reply_that_is_joined_and_lost_or_left(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat, chat.server.saying("hello") as other:
        session_id = (await begun(other, "One."))[0]["session_id"]
        screen = chat.screen
        await to_thread(screen.ask, "/health", "Uptime")  # on the connection that is not stalled
        chat.relay.always(STALLED)
        before = chat.relay.accepted
        await to_thread(screen.ask, f"/open {session_id}", "Continuing")
        # Before it is asked for there is no reply to stop, only a command to give up.
        async with timeout(PATIENCE):
            await chat.relay.wait_accepted(before + 1)
        screen.type("ctrl-c")
        await to_thread(screen.wait, "stopping when the reply begins; press Ctrl-C again to leave it")
        screen.type("ctrl-c")
        await to_thread(screen.wait, "\nleft before the reply began\n")
        await to_thread(screen.prompt)
        chat.relay.always(Fault(after=0, how="reset"))
        await to_thread(screen.ask, f"/open {session_id[:9]}", "Continuing", "no connection; trying again …")
        chat.relay.always(Fault())
        await to_thread(screen.wait, "One.")
        hold.release.set()
        await to_thread(screen.wait, "complete ·")


async def test_a_message_that_was_not_sent_stands_at_the_next_prompt(tmp_path: Path) -> None:
    async with AsyncExitStack() as gone:
        url = await gone.enter_async_context(speaking(until_left))
        async with chatting_with(f"http{url}", tmp_path, greets=False) as screen:
            await gone.aclose()
            await to_thread(screen.send, "//hello")
            await to_thread(screen.wait, "no connection; trying again …", "\nattempt 2 of 8 in ")
            screen.type("ctrl-c")
            await to_thread(screen.until, lambda: screen.text.endswith("new> //hello"))
            assert "\nno connection; trying again …\n" in screen.text
            assert "\nleft before the reply began; your message was not sent\n" in screen.text
            assert "attempt" not in screen.text
            screen.type("ctrl-c")
            await to_thread(screen.ask, "/stats", "none yet")
            for name in ("Messages sent", "Stopped streams", "Failed streams"):
                assert re.search(rf"^  {name} +0$", screen.said, re.MULTILINE), name


async def test_ctrl_c_while_the_client_connects_leaves_once_that_has_failed(tmp_path: Path) -> None:
    connecting = Semaphore(0)

    async def shake_no_hands(reader: StreamReader, writer: StreamWriter) -> None:
        connecting.release()
        await until_left(reader, writer)

    async with AsyncExitStack() as gone:
        address = await gone.enter_async_context(speaking(shake_no_hands))
        async with chatting_with(f"https{address}", tmp_path, greets=False) as screen:
            await to_thread(screen.send, "hello")
            async with timeout(PATIENCE):
                for _ in ("the greeting", "the message"):
                    await connecting.acquire()
            screen.type("ctrl-c")
            await to_thread(screen.wait, "\nstopping when the reply begins; press Ctrl-C again to leave it")
            await gone.aclose()
            await to_thread(screen.until, lambda: screen.text.endswith("new> hello"))
            assert "\nleft before the reply began; your message was not sent\n" in screen.text
            screen.type("ctrl-c")


async def test_a_session_that_is_deleted_in_the_middle_of_a_reply(tmp_path: Path) -> None:
    hold = Hold()
    async with talk(tmp_path, Scripted("One. ", hold)) as chat:
        screen = chat.screen
        await to_thread(screen.ask, "hello", "One.")
        [session] = (await chat.server.get("/sessions"))["sessions"]
        await chat.server.delete(f"/sessions/{session['session_id']}")
        await to_thread(screen.wait, "stopped · ", ": another client stopped it")
        await to_thread(screen.prompt)
        hold.release.set()
        await to_thread(screen.send, "//and now?")
        await to_thread(screen.until, lambda: screen.text.endswith("new> //and now?"))
        assert "\nthis session was deleted: send your message again to begin a new one\n" in screen.text
        screen.type("enter")
        await to_thread(screen.wait, "complete ·")
        await to_thread(screen.prompt)
        [session] = (await chat.server.get("/sessions"))["sessions"]
        assert session["title"] == "/and now?"
        await to_thread(screen.ask, "/stats", "Messages in it")
        for name, value in {"Messages sent": 2, "Failed streams": 0, "Sessions created": 2}.items():
            assert re.search(rf"^  {name} +{value}$", screen.said, re.MULTILINE), name


INFO = b'id: s.e.1\ndata: {"type":"session_info","session_id":"0123456789","stream_id":"s","model":"m"}\n\n'
HEAD = SSE_HEAD + b"tailrace-cursor: s.e.0\r\ncontent-location: /chat/stream/s\r\n\r\n"
CLOSED = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7200\r\ncontent-length: 0\r\n\r\n"


async def test_a_reply_that_cannot_be_read_on(tmp_path: Path) -> None:
    answers = iter([saying(HEAD + INFO), saying(CLOSED), saying(CLOSED)])

    async def speak(reader: StreamReader, writer: StreamWriter) -> None:
        line = await reader.readline()  # empty if the client only looks whether a server is there
        if line.startswith(b"GET /stats "):  # for the greeting
            await until_left(reader, writer)
        elif line:
            await next(answers)(reader, writer)

    async with speaking(speak) as where, chatting_with(f"http{where}", tmp_path, greets=False) as screen:
        await to_thread(screen.ask, "hello", "connection lost; reconnecting …", "failed · 0 chunks")
        await to_thread(screen.prompt)
        said = " ".join(screen.said.split())
        assert ": gave up after 2 failures: the server refused with 503;" in said
        assert "; /open 01234567 continues it" in said
        await to_thread(screen.send, "again?")
        may_have = "your message may have arrived: resending is safe"
        await to_thread(screen.until, lambda: may_have in " ".join(screen.text.split()))
        await to_thread(screen.until, lambda: screen.text.endswith("> again?"))
        screen.type("ctrl-c")

"""Asking a server, showing the reply, and what can get in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...client import ChatObject, SessionBusy, StreamFailed, StreamLost
from .message import Message
from .reply import Ended
from .running import RunningReply
from .server import Server
from .state import State
from .wording import code_of

if TYPE_CHECKING:
    from .view import View

BUSY = "This session is answering already; your message waits. The reply so far:"


class Conversation:
    """With the session of a state, or with one that the first message begins."""

    def __init__(self, server: Server, view: View, state: State) -> None:
        self.state = state
        self.interrupted = False
        """Whether Ctrl-C was pressed in the last reply."""
        self._server = server
        self._view = view

    async def ask(self, text: str, *, join: bool = True) -> Ended:
        """Send a message and show the reply. If the session is answering already, `join` reads that reply."""
        message = self._message(text)
        running = RunningReply(self._server, self._view, message)
        error = await running.read(
            # A session that was deleted elsewhere must not begin again, without its messages.
            lambda chat: chat.stream(
                text, message.session_id, create=False, idempotency_key=message.key, on_reset="restart"
            )
        )
        if join and isinstance(error, SessionBusy):
            self.state.unsent = text
            self._view.note(BUSY)
            return await self.join(error.stream_id)
        return self._conclude(running, error)

    async def join(self, stream_id: str) -> Ended:
        """Show a reply that is being written, from its beginning to its end."""
        running = RunningReply(self._server, self._view)
        error = await running.read(lambda chat: chat.resume(stream_id, on_reset="restart"))
        return self._conclude(running, error)

    def _message(self, text: str) -> Message:
        """A new one, or the same once more, which a server that had it answers only once."""
        again, self.state.unanswered = self.state.unanswered, None
        if again is not None and again.is_asked_by(text, self.state.session_id):
            return again
        return Message(text, self.state.session_id)

    # The end

    def _conclude(self, running: RunningReply, error: Exception | None) -> Ended:
        self.interrupted = running.interrupted
        self._count(running)
        if error is not None:
            return self._fail(running, error)
        if running.left:
            return self._leave(running)
        complete = running.reply.complete
        if complete is not None and complete.state == "complete":
            self.state.statistics.succeed(running.reply.chunks, complete.processing_time)
            self._view.end(running.summary("complete"))
            return "complete"
        self.state.statistics.stopped += 1
        # Whoever else has stopped it may have deleted it.
        kept = "what there is of it was kept" if running.interrupted else "somebody else has stopped it"
        self._view.end(running.summary("stopped", kept))
        return "stopped"

    def _count(self, running: RunningReply) -> None:
        statistics = self.state.statistics
        statistics.reconnections += running.reconnections
        statistics.chunks += running.reply.chunks
        if (info := running.reply.info) is None:
            return
        if running.message is not None:
            statistics.messages += 1
            statistics.sessions_created += self.state.session_id is None
        self.state.session_id = info.session_id

    def _leave(self, running: RunningReply) -> Ended:
        if (info := running.reply.info) is not None:
            self.state.statistics.stopped += 1
            self._view.end(running.summary("left", self._server.wording.goes_on(info.session_id)))
        else:
            self._view.end(f"left before it began{self._keep(running.message)}")
        return "left"

    def _fail(self, running: RunningReply, error: Exception) -> Ended:
        line = self._server.wording.sentence(error)
        self._view.take(_as_object(error, line, running.cursor))
        if (info := running.reply.info) is not None:
            self.state.statistics.failed += 1
            if isinstance(error, StreamLost):
                line = f"{line}; {self._server.wording.goes_on(info.session_id)}"
            line = running.summary("failed", line)
        elif code_of(error) == "session_not_found" and running.message is not None:
            line = self._forget(running.message, line)
        elif isinstance(error, StreamLost):
            line += self._keep(running.message)
        self._view.fail(line)
        return "failed"

    def _keep(self, message: Message | None) -> str:
        """Have a message at the next prompt again, and say so."""
        if message is None:
            return ""
        self.state.unsent = message.text
        if message.may_have_arrived:
            self.state.unanswered = message
        return f"; {self._server.wording.perhaps_sent(message)}"

    def _forget(self, message: Message, line: str) -> str:
        """Go on without the session, which is gone; and say so."""
        self.state.session_id = None
        self.state.unsent = message.text
        return self._server.wording.without_session(line)


def _as_object(error: Exception, line: str, cursor: str | None) -> ChatObject:
    """An error as an object of the stream: what the server has said of it, or else the line."""
    members = {"type": "error", "code": code_of(error), "message": line}
    if isinstance(error, StreamFailed):
        # The server's own object, as it came.
        members |= {"id": cursor} if cursor is not None else {}
        members |= error.members
    return ChatObject.model_validate(members)

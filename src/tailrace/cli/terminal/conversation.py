"""The messages and replies of a session, and everything that can go wrong between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...client import ChatObject, SessionBusy, StreamFailed, StreamLost
from .reply import Ended, RunningReply
from .server import Server, code_of
from .state import Message, State

if TYPE_CHECKING:
    from .view import View

BUSY = "This session is generating another reply, so your message waits. The reply so far:"


class Conversation:
    """Sends messages in the session of a state, or in the session that the first message begins."""

    def __init__(self, server: Server, view: View, state: State) -> None:
        self.state = state
        self.interrupted = False
        """True if Ctrl-C was pressed during the last reply."""
        self._server = server
        self._view = view

    async def ask(self, text: str, *, once: bool = False) -> Ended:
        """Send a message and show the reply. If the session is busy, show its reply in progress instead.

        With `once`, a busy session is a failure, and a session that does not exist begins.
        """
        message = self._message(text)
        running = RunningReply(self._server, self._view, message)
        error = await running.read(
            # In a chat, do not begin a deleted session again, because its messages would be missing.
            lambda chat: chat.stream(
                text, message.session_id, create=once, idempotency_key=message.key, on_reset="restart"
            )
        )
        if not once and isinstance(error, SessionBusy):
            self.state.unsent = text
            self._view.note(BUSY)
            return await self.join(error.stream_id)
        return self._conclude(running, error)

    async def join(self, stream_id: str) -> Ended:
        """Show a reply in progress from its beginning."""
        running = RunningReply(self._server, self._view)
        error = await running.read(lambda chat: chat.resume(stream_id, on_reset="restart"))
        return self._conclude(running, error)

    def _message(self, text: str) -> Message:
        """Return a new message, or the same unanswered one again, so that the server answers it only once."""
        again, self.state.unanswered = self.state.unanswered, None
        if again is not None and again.is_repeated_by(text, self.state.session_id):
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
            self._view.end(running.reply.summary("complete"))
            return "complete"
        self.state.statistics.stopped += 1
        # Another client may also have deleted the session.
        kept = "the text so far is kept" if running.interrupted else "another client stopped it"
        self._view.end(running.reply.summary("stopped", kept))
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
            self._view.end(running.reply.summary("left", self._server.wording.goes_on(info.session_id)))
        else:
            self._view.end(f"left before the reply began{self._keep(running.message)}")
        return "left"

    def _fail(self, running: RunningReply, error: Exception) -> Ended:
        line = self._server.wording.sentence(error)
        self._view.take(_as_object(error, line, running.cursor))
        if (info := running.reply.info) is not None:
            self.state.statistics.failed += 1
            if isinstance(error, StreamLost):
                line = f"{line}; {self._server.wording.goes_on(info.session_id)}"
            line = running.reply.summary("failed", line)
        elif code_of(error) == "session_not_found" and running.message is not None:
            line = self._forget(running.message, line)
        elif isinstance(error, StreamLost):
            line += self._keep(running.message)
        self._view.fail(line)
        return "failed"

    def _keep(self, message: Message | None) -> str:
        """Keep a message for the next prompt, and return the end of a sentence about it."""
        if message is None:
            return ""
        self.state.unsent = message.text
        if message.may_have_arrived:
            self.state.unanswered = message
        return f"; {self._server.wording.perhaps_sent(message)}"

    def _forget(self, message: Message, line: str) -> str:
        """Leave a deleted session, keep the message for the next prompt, and return a line that tells so."""
        self.state.session_id = None
        self.state.unsent = message.text
        return self._server.wording.without_session(line)


def _as_object(error: Exception, line: str, cursor: str | None) -> ChatObject:
    """Return an error as an object of the stream: the server's own object, or a new one with the line."""
    members = {"type": "error", "code": code_of(error), "message": line}
    if isinstance(error, StreamFailed):
        members |= {"id": cursor} if cursor is not None else {}
        members |= error.members
    return ChatObject.model_validate(members)

"""The server of the chat, and its errors in plain words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ...client import (
    AsyncChat,
    ChatClient,
    ClientError,
    NotAStream,
    Retry,
    Session,
    StreamFailed,
    StreamLost,
    StreamRefused,
    Unreachable,
)
from ...errors import DecodeError
from ..text import short

if TYPE_CHECKING:
    from ...client import Loss
    from ...client.settings import OnDegraded, OnReconnect
    from .state import Message

QUICK = Retry(limit=1, base=0.3)
"""The retries of a command, because the user sees nothing while it waits."""

PATIENT = Retry()
"""The retries of a reply, which shows every attempt."""

ERRORS = (ClientError, DecodeError)
"""The errors that any request can raise."""


class Trouble:
    """Tells the current reply when its connection is lost, and when the server cannot reach its store."""

    def __init__(self) -> None:
        self.tell_lost: OnReconnect | None = None
        self.tell_degraded: OnDegraded | None = None

    def lose(self, attempt: int, seconds: float, loss: Loss) -> None:
        assert self.tell_lost is not None, "no reply is being read"
        self.tell_lost(attempt, seconds, loss)

    def degrade(self, degraded: bool) -> None:
        assert self.tell_degraded is not None, "no reply is being read"
        self.tell_degraded(degraded)


class Server:
    """A chat server.

    - `chat`: a client that answers or fails soon.
    - `patient`: a client that reconnects, and tells `trouble` what happens to its connection.
    - `wording`: the sentences for its errors.
    """

    def __init__(self, chat: AsyncChat, patient: AsyncChat, trouble: Trouble, wording: Wording) -> None:
        self.chat = chat
        self.patient = patient
        self.trouble = trouble
        self.wording = wording

    def sessions(self) -> AsyncIterator[Session]:
        """Iterate over all sessions, the most recently used first, with few requests."""
        return self.chat.sessions(200)


@asynccontextmanager
async def connected(url: str, key: str | None, *, in_chat: bool = True) -> AsyncIterator[Server]:
    """Yield a server. The first request to it connects."""
    trouble = Trouble()
    patiently = ChatClient(url, api_key=key, retry=PATIENT, on_reconnect=trouble.lose, on_degraded=trouble.degrade)
    async with ChatClient(url, api_key=key, retry=QUICK) as chat, patiently as patient:
        yield Server(chat, patient, trouble, Wording(url, has_key=key is not None, in_chat=in_chat))


NO_KEY = "the server requires an API key: pass --key, or set TAILRACE_API_KEY"
WRONG_KEY = "the server does not know this API key"

_REFUSALS = {
    "session_not_found": "this session does not exist",
    "session_full": "this session is full",
    "stream_not_found": "the server no longer has this reply",
}

# Advice for the user, with commands of the chat.
_ADVICE = {
    "session_not_found": "/new begins another, /sessions lists them",
    "session_full": "/reset clears it, /new begins another",
}

_ELSEWHERE = frozenset({301, 302, 303, 307, 308, 404, 405, 501})
_NOTHING = ("", "not_found", "method_not_allowed")
"""The statuses and codes by which another kind of server tells that it has no such endpoint."""


class Wording:
    """Describes each error in one line and, in a chat, tells the user what to do."""

    def __init__(self, url: str, *, has_key: bool = False, in_chat: bool = True) -> None:
        self._url = url
        self._has_key = has_key
        self._in_chat = in_chat

    def sentence(self, error: Exception) -> str:
        if isinstance(error, StreamFailed):
            return f"{error.message or 'no reason given'} ({error.code or 'no code'})"
        if isinstance(error, StreamRefused):
            return self._refusal(error)
        if isinstance(error, NotAStream):
            return f"no chat server at {self._url} (it answers with {error.media_type[:80] or 'no media type'})"
        if isinstance(error, Unreachable):
            return f"no response from the server: {plain(error)}"
        if isinstance(error, StreamLost):
            tried = f"gave up after {error.attempts} failures: " if error.attempts > 1 else ""
            return tried + plain(error)
        return str(error)

    def goes_on(self, session_id: str) -> str:
        """Return what happens to a reply that the user leaves."""
        return f"/open {short(session_id)} continues it" if self._in_chat else "the server may still be generating it"

    def perhaps_sent(self, message: Message) -> str:
        """Return what happened to a message without a reply."""
        if not message.may_have_arrived:
            return "your message was not sent"
        return "your message may have arrived" + (": resending is safe" if self._in_chat else "")

    def without_session(self, line: str) -> str:
        """Return advice about a message to a deleted session."""
        return "this session was deleted: send your message again to begin a new one" if self._in_chat else line

    def _refusal(self, error: StreamRefused) -> str:
        code = error.code or ""
        if error.status == 401:
            return WRONG_KEY if self._has_key else NO_KEY
        if code in _NOTHING and error.status in _ELSEWHERE:
            return f"no chat server at {self._url} (status {error.status})"
        line = _REFUSALS.get(code) or error.detail or f"the server answered with status {error.status}"
        return f"{line}: {_ADVICE[code]}" if self._in_chat and code in _ADVICE else line


def plain(error: StreamLost | Unreachable) -> str:
    """Return the reason why there is no connection, without another library's message."""
    return f"{error.loss.reason}; {error.note}" if error.note else error.loss.reason


def code_of(error: Exception) -> str:
    """Return the error's code for programs."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    if isinstance(error, StreamLost | Unreachable):
        return "unreachable"
    return "refused" if isinstance(error, StreamRefused) else "failed"

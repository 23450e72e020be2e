"""What went wrong, in words for the one who talks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...client import NotAStream, StreamFailed, StreamLost, StreamRefused, Unreachable
from .state import short

if TYPE_CHECKING:
    from .message import Message

NO_KEY = "the server wants an API key: start with --key, or with TAILRACE_API_KEY set"
WRONG_KEY = "the server does not know this API key"

_REFUSALS = {
    "session_not_found": "there is no such session (any more)",
    "session_full": "this session is full",
    "stream_not_found": "the reply is not kept any more",
}

# What can be done about it where there are commands.
_ADVICE = {
    "session_not_found": "/new begins another, /sessions lists them",
    "session_full": "/reset empties it, /new begins another",
}

_ELSEWHERE = frozenset({301, 302, 303, 307, 308, 404, 405, 501})
_NOTHING = ("", "not_found", "method_not_allowed")
"""Statuses and codes by which a server says that what is asked for is not there."""


class Wording:
    """Sentences for errors of the client, each one line: what happened and, in a chat, what can be done."""

    def __init__(self, url: str, *, has_key: bool = False, in_chat: bool = True) -> None:
        self._url = url
        self._has_key = has_key
        self._in_chat = in_chat

    def sentence(self, error: Exception) -> str:
        if isinstance(error, StreamFailed):
            return f"{error.message or 'no reason was given'} ({error.code or 'no code'})"
        if isinstance(error, StreamRefused):
            return self._refusal(error)
        if isinstance(error, NotAStream):
            return f"no chat server at {self._url} (it answers with {error.media_type[:80] or 'no media type'})"
        if isinstance(error, Unreachable):
            return f"the server gives no answer: {plain(error)}"
        if isinstance(error, StreamLost):
            tried = f"given up after {error.attempts} failures: " if error.attempts > 1 else ""
            return tried + plain(error)
        return str(error)

    def goes_on(self, session_id: str) -> str:
        """Of a reply that nobody reads any more."""
        return f"/open {short(session_id)} reads on" if self._in_chat else "it may go on at the server"

    def perhaps_sent(self, message: Message) -> str:
        """Of a message to which nothing came."""
        if not message.may_have_arrived:
            return "your message was not sent"
        return "your message may have arrived" + (": sent again, it counts once" if self._in_chat else "")

    def without_session(self, line: str) -> str:
        """Of a message to a session that is gone, what else is said of it."""
        return "this session is gone: send your message again, and a new one begins" if self._in_chat else line

    def _refusal(self, error: StreamRefused) -> str:
        code = error.code or ""
        if error.status == 401:
            return WRONG_KEY if self._has_key else NO_KEY
        if code in _NOTHING and error.status in _ELSEWHERE:
            return f"no chat server at {self._url} (status {error.status})"
        said = _REFUSALS.get(code) or error.detail or f"the server answered with status {error.status}"
        return f"{said}: {_ADVICE[code]}" if self._in_chat and code in _ADVICE else said


def plain(error: StreamLost | Unreachable) -> str:
    """Why there is no connection, without what another library says of it."""
    return f"{error.loss.reason}; {error.note}" if error.note else error.loss.reason


def code_of(error: Exception) -> str:
    """What programs call it."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    if isinstance(error, StreamLost | Unreachable):
        return "unreachable"
    return "refused" if isinstance(error, StreamRefused) else "failed"

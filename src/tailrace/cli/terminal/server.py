"""The server that is talked to, and its errors in words for the one who talks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from ...client import ChatClient, ClientError, Retry, StreamFailed, StreamLost, StreamRefused, Unreachable
from ...errors import DecodeError

if TYPE_CHECKING:
    from ...client import AsyncChat
    from ...client.settings import OnReconnect

QUICK = Retry(limit=1, base=0.3)
"""For what somebody waits for who sees nothing meanwhile."""

ERRORS = (ClientError, DecodeError)
"""What can go wrong with any request."""

KEY = "the server wants an API key: start with --key, or with TAILRACE_API_KEY set"

# By status or code, what is to be done about it.
_ADVICE: dict[int | str, str] = {
    401: KEY,
    "session_not_found": "there is no such session (any more): /new begins another, /sessions lists them",
    "session_full": "this session is full: /reset empties it, /new begins another",
    "stream_not_found": "the reply is not kept any more",
}


class Server:
    """A chat server. `chat` answers or fails soon; `streams` is patient with a lost connection."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self._key = key
        self._stack = AsyncExitStack()
        self._streams: AsyncChat | None = None
        self.chat: AsyncChat

    async def __aenter__(self) -> Server:
        self.chat = await self._stack.enter_async_context(ChatClient(self.url, api_key=self._key, retry=QUICK))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def streams(self, on_reconnect: OnReconnect) -> AsyncChat:
        """The one and only; made when it is first needed."""
        if self._streams is None:
            client = ChatClient(self.url, api_key=self._key, on_reconnect=on_reconnect)
            self._streams = await self._stack.enter_async_context(client)
        return self._streams


def sentence(error: Exception) -> str:
    """An error of the client as one line: what happened, and what can be done."""
    if isinstance(error, StreamFailed):
        return f"{error.message or 'no reason was given'} ({error.code or 'no code'})"
    if isinstance(error, StreamRefused):
        default = error.detail or f"the server answered with status {error.status}"
        return _ADVICE.get(error.status) or _ADVICE.get(error.code or "") or default
    if isinstance(error, Unreachable):
        return f"the server gives no answer: {error.reason}"
    if isinstance(error, StreamLost):
        return f"the connection could not be made again: {error.reason}"
    return str(error)


def code_of(error: Exception) -> str:
    """What programs call it."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    if isinstance(error, StreamLost | Unreachable):
        return "unreachable"
    return "refused" if isinstance(error, StreamRefused) else "failed"

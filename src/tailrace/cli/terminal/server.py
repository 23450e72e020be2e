"""The server that is talked to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ...client import AsyncChat, ChatClient, ClientError, Retry, Session
from ...errors import DecodeError
from .wording import Wording

if TYPE_CHECKING:
    from ...client import Loss
    from ...client.settings import OnReconnect

QUICK = Retry(limit=1, base=0.3)
"""For what somebody waits for who sees nothing meanwhile."""

PATIENT = Retry()
"""For a reply, whose reader is told of every attempt."""

ERRORS = (ClientError, DecodeError)
"""What can go wrong with any request."""


class Lost:
    """What is done when the connection is lost that a reply comes by: each reply has its own way."""

    def __init__(self) -> None:
        self.tell: OnReconnect | None = None

    def __call__(self, attempt: int, seconds: float, loss: Loss) -> None:
        assert self.tell is not None, "nobody reads"
        self.tell(attempt, seconds, loss)


class Server:
    """A chat server. `chat` answers or fails soon; `patient` bears with what is `lost`. `wording` has its errors."""

    def __init__(self, chat: AsyncChat, patient: AsyncChat, lost: Lost, wording: Wording) -> None:
        self.chat = chat
        self.patient = patient
        self.lost = lost
        self.wording = wording

    def sessions(self) -> AsyncIterator[Session]:
        """All of them, the last used first, with as few requests as they take."""
        return self.chat.sessions(200)


@asynccontextmanager
async def connected(url: str, key: str | None, *, in_chat: bool = True) -> AsyncIterator[Server]:
    """A server. The connections with it are made when something is asked."""
    lost = Lost()
    async with (
        ChatClient(url, api_key=key, retry=QUICK) as chat,
        ChatClient(url, api_key=key, retry=PATIENT, on_reconnect=lost) as patient,
    ):
        yield Server(chat, patient, lost, Wording(url, has_key=key is not None, in_chat=in_chat))

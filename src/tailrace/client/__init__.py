"""A client for streams: it reads on after a lost connection, without a gap or a duplicate, until the stream has ended.

It needs the extra `client`: httpx, and websockets for `ws://` and `wss://`.
"""

from .errors import (
    ClientError,
    NotAStream,
    NotStoppable,
    SessionBusy,
    StreamFailed,
    StreamLost,
    StreamRefused,
    StreamReset,
    Unreachable,
)
from .events import AsyncEvents, Events
from .settings import Retry, Timeouts
from .tail import Tail, tail

__all__ = [
    "AsyncEvents",
    "ClientError",
    "Events",
    "NotAStream",
    "NotStoppable",
    "Retry",
    "SessionBusy",
    "StreamFailed",
    "StreamLost",
    "StreamRefused",
    "StreamReset",
    "Tail",
    "Timeouts",
    "Unreachable",
    "tail",
]

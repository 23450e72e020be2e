"""A client for streams: it reads on after a lost connection, without a gap or a duplicate, until the stream has ended.

It needs the extra `client`: httpx, and websockets for `ws://` and `wss://`.
"""

from ..wire.base import Frame
from .chat import AsyncChat, Chat, ChatClient
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
from .objects import (
    ChatObject,
    Chunk,
    Complete,
    Health,
    Message,
    Reply,
    ServerInformation,
    Session,
    SessionDetails,
    SessionInfo,
    Stats,
    Status,
    Stopped,
)
from .settings import Retry, Timeouts
from .tail import Tail, tail

__all__ = [
    "AsyncChat",
    "AsyncEvents",
    "Chat",
    "ChatClient",
    "ChatObject",
    "Chunk",
    "ClientError",
    "Complete",
    "Events",
    "Frame",
    "Health",
    "Message",
    "NotAStream",
    "NotStoppable",
    "Reply",
    "Retry",
    "ServerInformation",
    "Session",
    "SessionBusy",
    "SessionDetails",
    "SessionInfo",
    "Stats",
    "Status",
    "Stopped",
    "StreamFailed",
    "StreamLost",
    "StreamRefused",
    "StreamReset",
    "Tail",
    "Timeouts",
    "Unreachable",
    "tail",
]

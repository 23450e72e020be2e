"""A client for streams. It reconnects without a gap or a duplicate until the stream has ended.

It needs the extra `client`: httpx, and websockets for `ws://` and `wss://`. The models, the settings and the errors
need neither, because each name is imported only when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "AlreadyRead",
    "AsyncChat",
    "AsyncEvents",
    "AsyncPackets",
    "Chat",
    "ChatClient",
    "ChatObject",
    "Chunk",
    "ClientError",
    "Complete",
    "Deleted",
    "Error",
    "Events",
    "Frame",
    "HTMLBlock",
    "Health",
    "Loss",
    "Message",
    "NotASession",
    "NotAStream",
    "NotStoppable",
    "PacketClient",
    "PacketStream",
    "PacketType",
    "Packets",
    "Reasoning",
    "Reply",
    "RequestFailed",
    "RequestTimedOut",
    "Requests",
    "Retry",
    "ServerInformation",
    "Session",
    "SessionBusy",
    "SessionChange",
    "SessionDetails",
    "SessionEnded",
    "SessionInfo",
    "SessionPage",
    "SocketPacket",
    "Stats",
    "Status",
    "Stopped",
    "StreamFailed",
    "StreamLost",
    "StreamRefused",
    "StreamReset",
    "Tail",
    "Timeouts",
    "TooManyUnread",
    "TurnNotLast",
    "Unreachable",
    "UnusableEnvironment",
    "tail",
]

# The modules that define these names, lower layers first. Only the last ones import httpx.
_MODULES = ("..wire.base", ".settings", ".errors", ".objects", ".stream", ".chat", ".packets")
# Packets need no other module of these, and only packet sessions need packets.
_HOMES = dict.fromkeys(("PacketType", "RequestFailed", "SocketPacket"), ("..packet",))

if TYPE_CHECKING:
    from ..packet import PacketType, RequestFailed, SocketPacket
    from ..wire.base import Frame
    from .chat import AsyncChat, Chat, ChatClient
    from .errors import (
        AlreadyRead,
        ClientError,
        NotASession,
        NotAStream,
        NotStoppable,
        RequestTimedOut,
        SessionBusy,
        SessionEnded,
        StreamFailed,
        StreamLost,
        StreamRefused,
        StreamReset,
        TooManyUnread,
        TurnNotLast,
        Unreachable,
        UnusableEnvironment,
    )
    from .objects import (
        ChatObject,
        Chunk,
        Complete,
        Deleted,
        Error,
        Health,
        HTMLBlock,
        Message,
        Reasoning,
        Reply,
        Requests,
        ServerInformation,
        Session,
        SessionChange,
        SessionDetails,
        SessionInfo,
        SessionPage,
        Stats,
        Status,
        Stopped,
    )
    from .packets import AsyncPackets, PacketClient, Packets, PacketStream
    from .settings import Loss, Retry, Timeouts
    from .stream import AsyncEvents, Events, Tail, tail
else:

    def __getattr__(name: str) -> object:
        """Import a public name from the module that defines it, when the name is first used."""
        for path in _HOMES.get(name, _MODULES) if name in __all__ else ():
            module = import_module(path, __name__)
            value = getattr(module, name, None)
            if value is not None and value.__module__ == module.__name__:
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)

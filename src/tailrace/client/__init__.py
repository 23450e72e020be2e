"""A client for streams. It reconnects without a gap or a duplicate until the stream has ended.

It needs the extra `client`: httpx, and websockets for `ws://` and `wss://`. The models, the settings and the errors
need neither, because each name is imported only when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "AsyncChat",
    "AsyncEvents",
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
    "Health",
    "Loss",
    "Message",
    "NotAStream",
    "NotStoppable",
    "Reasoning",
    "Reply",
    "Requests",
    "Retry",
    "ServerInformation",
    "Session",
    "SessionBusy",
    "SessionDetails",
    "SessionInfo",
    "SessionPage",
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
    "UnusableEnvironment",
    "tail",
]

# The modules that define these names, lower layers first. Only the last ones import httpx.
_MODULES = ("..wire.base", ".settings", ".errors", ".objects", ".stream", ".chat")

if TYPE_CHECKING:
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
        UnusableEnvironment,
    )
    from .objects import (
        ChatObject,
        Chunk,
        Complete,
        Deleted,
        Error,
        Health,
        Message,
        Reasoning,
        Reply,
        Requests,
        ServerInformation,
        Session,
        SessionDetails,
        SessionInfo,
        SessionPage,
        Stats,
        Status,
        Stopped,
    )
    from .settings import Loss, Retry, Timeouts
    from .stream import AsyncEvents, Events, Tail, tail
else:

    def __getattr__(name: str) -> object:
        """Import a public name from the module that defines it, when the name is first used."""
        for path in _MODULES if name in __all__ else ():
            module = import_module(path, __name__)
            value = getattr(module, name, None)
            if value is not None and value.__module__ == module.__name__:
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)

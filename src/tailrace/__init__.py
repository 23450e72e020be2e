"""Streams for FastAPI that survive the network. Every stream is a log, and a response reads it from a cursor."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_WIRES",
    "NDJSON",
    "SSE",
    "Batch",
    "Control",
    "Cursor",
    "CursorError",
    "DecodeError",
    "Decoder",
    "Degraded",
    "Dropped",
    "Encoder",
    "Engine",
    "EngineStatistics",
    "Entries",
    "Entry",
    "Event",
    "EventError",
    "Farewell",
    "FileChanged",
    "FileResponse",
    "Flow",
    "Frame",
    "FrameTooLarge",
    "Job",
    "Keeping",
    "Log",
    "LogClosed",
    "LogExists",
    "LogFenced",
    "LogReset",
    "LogStatistics",
    "LogStore",
    "MemoryLog",
    "MemoryStore",
    "NotAcceptable",
    "Notice",
    "OnDisconnect",
    "OpenAIChunks",
    "OriginGuard",
    "Outcome",
    "Producer",
    "ProducerOptions",
    "Reset",
    "ResponseMode",
    "Result",
    "Retention",
    "SlowReader",
    "StoreUnavailable",
    "StreamError",
    "StreamResponse",
    "StreamRouter",
    "StreamSettings",
    "Tail",
    "TailraceError",
    "Text",
    "Truncated",
    "Wire",
    "Writer",
    "choose_wire",
    "create_streaming_endpoint",
    "detect_mode",
    "encode_data",
    "format_sse",
    "get_streaming_html",
    "get_streaming_js",
    "javascript_client",
    "lifespan",
    "read_notice",
    "stream_response",
]

# The modules of the public names, lower layers first. Only the last ones import FastAPI, which clients do not need.
_MODULES = (
    *(".errors", ".cursor", ".events", ".flow", ".iterators"),
    *(".wire.base", ".wire.batch", ".wire.ndjson", ".wire.openai", ".wire.sse", ".wire.text"),
    *(".widgets", ".modes", ".log.base", ".log.writer", ".log.store", ".log.memory", ".producer"),
    *(".engine.engine", ".engine.producers"),
    *(
        ".asgi.settings",
        ".asgi.files",
        ".asgi.lifespan",
        ".asgi.origins",
        ".asgi.response",
        ".pages",
        ".routing.router",
        ".routing.shortcuts",
    ),
)

if TYPE_CHECKING:
    from .asgi.files import FileResponse
    from .asgi.lifespan import lifespan
    from .asgi.origins import OriginGuard
    from .asgi.response import StreamResponse
    from .asgi.settings import StreamSettings
    from .cursor import Cursor
    from .engine.engine import Engine, EngineStatistics
    from .engine.producers import ProducerOptions
    from .errors import (
        CursorError,
        DecodeError,
        EventError,
        FileChanged,
        FrameTooLarge,
        LogClosed,
        LogExists,
        LogFenced,
        LogReset,
        NotAcceptable,
        SlowReader,
        StoreUnavailable,
        StreamError,
        TailraceError,
        Truncated,
    )
    from .events import Degraded, Dropped, Entries, Entry, Event, Farewell, Notice, Outcome, Reset, Result, encode_data
    from .flow import Flow, LogStatistics, Retention
    from .iterators import Job
    from .log.base import Control, Log, Tail
    from .log.memory import MemoryLog, MemoryStore
    from .log.store import Keeping, LogStore
    from .log.writer import Writer
    from .modes import DEFAULT_WIRES, ResponseMode, choose_wire, detect_mode
    from .pages import javascript_client
    from .producer import OnDisconnect, Producer
    from .routing.router import StreamRouter
    from .routing.shortcuts import create_streaming_endpoint, stream_response
    from .widgets import get_streaming_html, get_streaming_js
    from .wire.base import Decoder, Encoder, Frame, Wire, read_notice
    from .wire.batch import Batch
    from .wire.ndjson import NDJSON
    from .wire.openai import OpenAIChunks
    from .wire.sse import SSE, format_sse
    from .wire.text import Text
else:

    def __getattr__(name: str) -> object:
        """Return a public name from the module that defines it. The first access imports the module."""
        for path in _MODULES if name in __all__ else ():
            value = getattr(import_module(path, __name__), name, None)
            # Constants and type aliases have no `__module__`. The first module with the name defines it.
            home = getattr(value, "__module__", "")
            if value is not None and (home == __name__ + path or not home.startswith(__name__)):
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]

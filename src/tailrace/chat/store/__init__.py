"""The store of sessions and turns: SQLite in a file, or PostgreSQL."""

from .database import InUse, OtherStreams, StoreError, Streams
from .records import (
    BadToken,
    Begun,
    NewTurn,
    Page,
    Session,
    SessionFull,
    SessionLimit,
    SessionNotFound,
    SessionRunning,
    Turn,
    TurnNotLast,
    TurnState,
)
from .store import Store, open_store

__all__ = [
    "BadToken",
    "Begun",
    "InUse",
    "NewTurn",
    "OtherStreams",
    "Page",
    "Session",
    "SessionFull",
    "SessionLimit",
    "SessionNotFound",
    "SessionRunning",
    "Store",
    "StoreError",
    "Streams",
    "Turn",
    "TurnNotLast",
    "TurnState",
    "open_store",
]

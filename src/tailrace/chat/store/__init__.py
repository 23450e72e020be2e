"""Where sessions and turns are kept: SQLite in a file, or PostgreSQL."""

from .errors import BadToken, SessionFull, SessionLimit, SessionNotFound, StoreError
from .records import Begun, NewTurn
from .store import Store, open_store

__all__ = [
    "BadToken",
    "Begun",
    "NewTurn",
    "SessionFull",
    "SessionLimit",
    "SessionNotFound",
    "Store",
    "StoreError",
    "open_store",
]

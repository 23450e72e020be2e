"""What to follow, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..wire.base import MAX_FRAME_BYTES
from .settings import OnReconnect, OnReset, Retry, Timeouts


@dataclass(frozen=True, slots=True)
class Plan:
    """A stream's first request. `key` is its idempotency key, `after` the id to begin after."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    key: str | None = None
    after: str | None = None
    retry: Retry = field(default_factory=Retry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_reset: OnReset = "raise"
    on_reconnect: OnReconnect | None = None
    allow_gaps: bool = False
    max_bytes: int = MAX_FRAME_BYTES

    @property
    def is_socket(self) -> bool:
        return urlsplit(self.url).scheme in ("ws", "wss")

    @property
    def is_safe(self) -> bool:
        """Whether the request starts nothing when it is repeated."""
        return self.method in _SAFE or self.key is not None


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

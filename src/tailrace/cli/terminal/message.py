"""A message of the user's, and whether it can have arrived."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...client import Loss


@dataclass
class Message:
    """What is asked in a session, or in a new one where it has none. By its `key` a server knows it again."""

    text: str
    session_id: str | None
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    clock: Callable[[], float] = time.monotonic
    _was_sent: bool = False
    _next: float = 0.0

    @property
    def may_have_arrived(self) -> bool:
        """Not so if every attempt found nobody to send it to, and no other has begun."""
        return self._was_sent or self.clock() >= self._next

    def miss(self, loss: Loss, seconds: float) -> None:
        """An attempt has failed, and so many seconds later another one begins."""
        self._was_sent |= loss.kind != "unsent"
        self._next = self.clock() + seconds

    def is_asked_by(self, text: str, session_id: str | None) -> bool:
        """Whether to ask that is to ask this again."""
        return (self.text, self.session_id) == (text, session_id)

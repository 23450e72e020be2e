"""Where logs live: one URL scheme each."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..flow import Retention
from .base import Log


class LogStore(ABC):
    """Keeps logs by name."""

    survives_restart: bool = False
    """Whether a cursor can be continued in another process."""

    @abstractmethod
    def open(self, name: str, retention: Retention) -> Log:
        """The log of a name, made if there is none."""

    @abstractmethod
    def create(self, name: str, retention: Retention) -> Log:
        """A log of a name that has none yet; ValueError if it has."""

    @abstractmethod
    async def find(self, name: str) -> Log | None:
        """The log of a name, if there is one."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Forget a log and all its entries."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of what the store holds."""

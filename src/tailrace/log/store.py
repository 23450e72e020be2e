"""The contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..flow import Retention
from .base import Log
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long a store keeps logs that nobody uses. Times are in seconds.

    - `keep`: for how long an ended log can be replayed after its end, or after its last reader left.
    - `count`, `size`: how many ended logs without readers to keep, and how many bytes of their JSON.
    - `idle`: how long to keep an open log that is not read, written or held. None keeps it forever.
    """

    keep: float = 300.0
    count: int = 1_000
    size: int = 64 << 20
    idle: float | None = 3_600.0


class LogStore(ABC):
    """Keeps logs by name. Each URL scheme has its own store. `tailrace.testing.LogContract` checks all of them.

    A store forgets what nobody uses, as its Keeping says. A log is in use while it has readers or a writer, in any
    process, and while an application holds it if it is open.
    """

    shared: bool = False
    """True if other processes share the logs, and can continue a cursor."""

    @abstractmethod
    async def find(self, name: str) -> Log | None:
        """Return the log with a name, ready to be read, or None."""

    @abstractmethod
    async def attach(self, name: str, retention: Retention) -> Log:
        """Return the log with a name, ready to be read. Make one if there is none."""

    @abstractmethod
    async def create(
        self, name: str, retention: Retention, *, epoch: str | None = None, fingerprint: bytes = b""
    ) -> Log:
        """Make the log of one request's stream. Raise LogExists if the name is taken.

        If several callers ask at once, even in different processes, one succeeds. The log is `passing` and has the
        fingerprint.
        """

    @abstractmethod
    async def lease(self, log: Log) -> Writer:
        """Become the log's writer. Raise LogFenced if it has one, and LogClosed if it has ended.

        Each lease has a greater `fence` than the one before.
        """

    @abstractmethod
    async def expire(self, log: Log, seconds: float) -> None:
        """Forget a log in `seconds`, unless it is read or written by then. A later call replaces an earlier one."""

    @abstractmethod
    async def drop(self, log: Log) -> None:
        """Forget a log and its entries now, even if it is in use. Do nothing if another log has its name by now.

        Its writer can write no more. Its readers get a reset, unless the log has ended.
        """

    @abstractmethod
    async def secret(self) -> bytes:
        """Return 32 random bytes that are the same in every process, to derive unguessable names from."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release the store's resources. You can use the store again afterwards."""

    @property
    @abstractmethod
    def kept(self) -> tuple[int, int]:
        """The number of ended logs without readers that this process keeps, and the bytes of their JSON."""

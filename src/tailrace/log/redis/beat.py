"""Finds dead processes: each process raises a counter and watches the counters of the others.

| key | value |
|---|---|
| `{<prefix>}:processes` | a hash: each process and its counter |
| `{<prefix>}:used:<process>` | a set: the names of the logs that the process reads or writes |

The braces are a hash tag: one server of a cluster has these keys.

A process whose counter stood still for three rounds of another one is dead to that one, which buries it: it ends the
streams that the dead one wrote, and removes the dead one from those that it read. No clock takes part, so nothing
happens when a clock jumps. Failed rounds do not count, and neither do rounds in which Redis has no memory left to raise
a counter. So nobody is buried because Redis was frozen. The counter is raised in the event loop that produces, so that
a loop that hangs counts as dead as well.

Each round also publishes a number that has to come back by the next one (`Servers.echo`). Otherwise the connections
lead nowhere, and the round does not count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ...errors import StoreUnavailable
from ...events import Outcome
from .attempts import answering
from .connection import Refused, Unreachable
from .frames import encode_outcome
from .scripts import BURY, Keys
from .server import Servers

logger = logging.getLogger("tailrace.log.redis")

DEAD_AFTER = 3
"""The number of rounds for which the counter of a dead process stands still."""

BURIED_AT_ONCE = 256
"""How many streams of a dead process end at once. One after the other, 10,000 of them would take so many round trips
that the burying process would hang itself."""

PRODUCER_LOST = Outcome("error", "producer_lost", "the process that produced the stream is gone")


class Beat:
    """Raises this process's counter once in `interval` seconds, and buries processes whose counters stand still."""

    def __init__(
        self,
        servers: Servers,
        prefix: str,
        process: bytes,
        *,
        interval: float,
        keep_ms: int,
        tend: Callable[[], Awaitable[None]],
        buried: Callable[[], object],
    ) -> None:
        """Make the beat of a process. `keep_ms` is how long to keep the streams of the dead.

        It calls `tend` in each round, and `buried` when this process finds that others took it for dead.
        """
        self.process = process
        self._servers = servers
        self._prefix = prefix
        self._processes = f"{{{prefix}}}:processes"
        self._interval = interval
        self._keep_ms = keep_ms
        self._tend = tend
        self._buried = buried
        self._count = 0
        self._others: dict[bytes, tuple[bytes, int]] = {}  # counter, and for how many rounds it has stood still

    async def run(self) -> None:
        """Beat until cancelled."""
        told = ""
        while True:
            pause = self._interval
            try:
                await self._round()
            except (Unreachable, Refused, StoreUnavailable, TimeoutError) as error:
                logger.debug("a round failed: %s", error)
                if isinstance(error, Refused):
                    if error.code == "READONLY":
                        self._servers.drop("it is a replica by now")  # its name may lead to the new master
                    elif error.code == "NOPERM" and str(error) != told:
                        told = str(error)
                        logger.warning("a round of the beat failed: %s", told)
                # The others may need as long as this process to connect again. So count anew, and come back soon.
                self._others.clear()
                pause /= 4
            await asyncio.sleep(pause)

    async def use(self, name: str) -> None:
        """Note that this process uses a log, before its next command does. Raise StoreUnavailable."""
        call = self._servers.call
        with answering(name):
            # Each time: if Redis has lost its data since the last round, the others would not look for this process.
            noted = call("HSETNX", self._processes, self.process, 0), call("SADD", self._used(self.process), name)
            if self._servers.apart:  # otherwise the next command follows on the same connection
                await asyncio.gather(*noted)

    def leave_off(self, name: str) -> None:
        """Note that this process no longer uses a log. Raise NotSent."""
        self._servers.call("SREM", self._used(self.process), name)

    def _used(self, process: bytes) -> str:
        return f"{{{self._prefix}}}:used:{process.decode()}"

    async def leave(self) -> None:
        """Remove this process and its readers in an orderly way, and end streams that it should have ended."""
        await self._bury(self.process)

    async def _round(self) -> None:
        await self._servers.ready(self._processes, self._interval)
        if not self._servers.listens():
            return
        call = self._servers.call
        counting = call("HINCRBY", self._processes, self.process, 1)
        reading = call("HGETALL", self._processes)
        try:
            counted, counters, _ = await asyncio.gather(counting, reading, self._servers.echo())
        except Refused as error:
            if error.code != "OOM":
                raise
            self._others.clear()  # none of them can count, so this process cannot tell which are dead
        else:
            if counted <= self._count:
                self._buried()
            self._count = counted
            await self._look_at(counters)
        try:
            # If one of several servers is down, the others must not take this process for dead.
            async with asyncio.timeout(self._interval if self._servers.apart else None):
                await self._tend()
        except (Unreachable, Refused, StoreUnavailable, TimeoutError):
            if not self._servers.apart:
                raise

    async def _look_at(self, counters: dict[bytes, bytes]) -> None:
        """Compare the counters of the others with those of the last round."""
        before, self._others = self._others, {}
        for process, count in counters.items():
            if process != self.process:
                was, rounds = before.get(process, (b"", 0))
                still = rounds + 1 if count == was else 0
                self._others[process] = count, still
                if still >= DEAD_AFTER:
                    logger.warning("process %s is gone, and its streams end", process.decode())
                    await self._bury(process)
                    # If it comes back, it begins with the same low counter as after an earlier burial.
                    del self._others[process]

    async def _bury(self, process: bytes) -> None:
        """Remove a process from everything. Others may do the same meanwhile, so each step can be repeated."""
        names = tuple(await self._servers.call("SMEMBERS", self._used(process)))
        for start in range(0, len(names), BURIED_AT_ONCE):
            await asyncio.gather(*(self._bury_in(name, process) for name in names[start : start + BURIED_AT_ONCE]))
        await asyncio.gather(
            self._servers.call("DEL", self._used(process)), self._servers.call("HDEL", self._processes, process)
        )

    async def _bury_in(self, name: bytes, process: bytes) -> None:
        keys = Keys.of(self._prefix, name.decode())
        outcome = encode_outcome(PRODUCER_LOST)
        await self._servers.run(BURY, keys.all, process, outcome, self._keep_ms)

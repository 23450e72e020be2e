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

Each round also publishes a number at every server, which has to come back by the next round (`Servers.echo`). Otherwise
the connections to it lead nowhere, and are made anew. If the counters are there, they are counted anew as well.

The logs are tended in other rounds. In a cluster, only one server has the counters, but all of them have logs. So the
numbers are published, and the logs are tended, while the counters are out of reach.
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

FAILURES = Unreachable, Refused, StoreUnavailable, TimeoutError
"""The errors of a round that failed."""

PRODUCER_LOST = Outcome("error", "producer_lost", "the process that produced the stream is gone")


class Beat:
    """Raises this process's counter once in `interval` seconds, and buries processes whose counters stand still.

    It also checks the connections to all servers, and lets the logs be tended.
    """

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

        It calls `tend` once in an interval, and `buried` when this process finds that others took it for dead.
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
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._count_round))
            group.create_task(self._repeat(self._tend_round))

    async def _repeat(self, make_round: Callable[[], Awaitable[None]]) -> None:
        """Make a round once in an interval. Come back soon after one that failed."""
        told = ""
        while True:
            pause = self._interval
            try:
                await make_round()
            except FAILURES as error:
                logger.debug("a round failed: %s", error)
                if isinstance(error, Refused):
                    if error.code == "READONLY":
                        self._servers.drop("it is a replica by now")  # its name may lead to the new master
                    elif error.code == "NOPERM" and str(error) != told:
                        told = str(error)
                        logger.warning("a round of the beat failed: %s", told)
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

    async def _count_round(self) -> None:
        """Raise the counter of this process, and compare those of the others with the last round.

        First, see whether the last numbers came back, and publish the next ones: also while the counters are away.
        """
        try:
            await self._connected()
            self._servers.drop_deaf()
            echoed = self._servers.echo()
            if not self._servers.reaches(self._processes.encode()):
                self._others.clear()  # perhaps nobody else counts where the last connection led
            await self._servers.ready(self._processes, self._interval)
            counting = self._servers.call("HINCRBY", self._processes, self.process, 1)
            reading = self._servers.call("HGETALL", self._processes)
            counted, counters, _ = await asyncio.gather(counting, reading, echoed)
            if counted <= self._count:
                self._buried()
            self._count = counted
            await self._look_at(counters)
        except FAILURES:
            # The others may need as long as this process to connect again, or cannot count either. So count anew.
            self._others.clear()
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
                    self._others.pop(process, None)

    async def _tend_round(self) -> None:
        """Tend the logs of all servers in reach."""
        await self._connected()
        # If one of several servers is down, the logs on the others must not wait for it.
        async with asyncio.timeout(self._interval if self._servers.apart else None):
            await self._tend()

    async def _connected(self) -> None:
        """Wait until any server is in reach."""
        if not self._servers.connected:
            await self._servers.ready(self._processes, self._interval)

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

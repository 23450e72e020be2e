"""The end of a server: a farewell for readers, a grace for producers, and last words."""

from __future__ import annotations

import asyncio

from .producers import Producers
from .readers import Readers

LAST_WORDS = 1.0
"""Seconds after the grace for telling readers how their streams ended."""


class Shutdown:
    """Sends readers away at once, stops producers after a grace, and ends all connections after their last words."""

    def __init__(self, readers: Readers, producers: Producers, grace: float) -> None:
        """`grace` is the seconds for producers, unless `begin` says otherwise."""
        self._readers = readers
        self._producers = producers
        self.grace = grace
        self.begun = False
        self._timer: asyncio.TimerHandle | None = None  # of the grace
        self._last_words: asyncio.TimerHandle | None = None

    def begin(self, grace: float | None) -> None:
        """Send readers away and give producers a grace. A later call can only shorten it."""
        if not self.begun:
            self.begun = True
            self._producers.hurry()
            self._readers.leave()
            self._give_grace(self.grace if grace is None else grace)
        elif grace is not None:
            self._give_grace(grace)

    async def finish(self) -> None:
        """Wait until producers and readers have ended."""
        await self._producers.wait_none()
        # Readers that were sent away end by themselves. The others are abandoned when the grace is over.
        await self._readers.wait_none()
        for timer in (self._timer, self._last_words):
            if timer is not None:
                timer.cancel()
        self._timer = self._last_words = None

    def _give_grace(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._last_words is not None:
            return  # the grace is over
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        if seconds > 0:
            self._timer = loop.call_later(seconds, self._end_grace)
        else:
            self._end_grace()

    def _end_grace(self) -> None:
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS, self._readers.abandon)
        self._producers.stop_all()

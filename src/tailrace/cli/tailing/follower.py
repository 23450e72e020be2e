"""A stream, on its way to the standard output."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace

from ...client import Tail
from ...errors import TailraceError
from ...events import Outcome
from ...wire.base import Frame
from ..command import CommandError, UsageError
from ..notices import Notices
from ..output import NobodyReads, Output
from .failure import explain
from .line import Printer
from .request import ask
from .way_on import WayOn

BROKEN_PIPE = 141
"""The exit status when nobody reads any more, as shells have it of those whom SIGPIPE ends."""


def follow(options: Namespace) -> int:
    """Print the events until the stream, or what the options ask for, has ended; the exit status."""
    notices = Notices("tail", quiet=options.quiet)
    try:
        stream = ask(options, notices.tell_reconnect)
        return _run(Follower(options, notices, stream))
    except ValueError as error:  # which is what the client says of a request that cannot be
        raise UsageError(str(error)) from None


def _run(follower: Follower) -> int:
    try:
        asyncio.run(follower.run())
    except NobodyReads:
        return BROKEN_PIPE
    except KeyboardInterrupt:  # pragma: no cover - where it is traced, Python 3.11 may lose a cancellation
        follower.tell_way_on()
        raise
    return 0


class Follower:
    """Prints the events of one stream."""

    def __init__(self, options: Namespace, notices: Notices, stream: Tail[Frame]) -> None:
        self._options = options
        self._notices = notices
        self._stream = stream
        self._way_on = WayOn(options)
        self._output = Output(sys.stdout.fileno())
        self._printer = Printer(objects=options.json, terminal=sys.stdout.isatty())

    async def run(self) -> None:
        """To the end; CommandError where it is not the one that the options ask for."""
        try:
            await self._output.during(self._follow())
        except TailraceError as error:
            raise CommandError(explain(error, self._options, self._way_on, self._output.mark)) from None

    def tell_way_on(self) -> None:
        if (way_on := self._way_on.after(self._output.mark)) is not None:
            self._notices.tell(way_on)

    async def _follow(self) -> None:
        left = self._options.max
        event = None
        async with self._stream as events:
            self._output.mark = events.cursor
            self._way_on.note(events.address)
            async for event in events:
                await self._output.put(self._printer.line(event, events.media_type), event.id)
                left = left and left - 1
                if left == 0 or self._is_last(event):
                    return
                self._way_on.note(events.address)
        # Some wires have the value of the whole stream as an event, others only in its end.
        if (outcome := events.outcome) is not None and outcome.data is not None:
            result = Frame(outcome.data, None, events.cursor)
            if event is None or event.data != result.data:
                await self._output.put(self._printer.line(result, events.media_type), result.id)
            if self._is_last(result):
                return
        self._end(outcome)

    def _is_last(self, event: Frame) -> bool:
        name, data = self._options.until, event.data
        return name is not None and (event.event == name or (isinstance(data, dict) and data.get("type") == name))

    def _end(self, outcome: Outcome | None) -> None:
        state = None if outcome is None else outcome.state
        if outcome is not None and state == "cancelled":
            reason = outcome.message or outcome.code or "no reason is given"
            self._notices.tell(f"the stream was stopped: {reason}")
        if self._options.until not in (None, state):
            raise CommandError(f"the stream ended, but no event `{self._options.until}` came")

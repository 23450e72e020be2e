"""What the drivers share: turning a core's commands into calls, and its gifts into an iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from ..events import Outcome
from ..wire.base import Frame
from .commands import Command, Failed, Flow, Open, Say
from .core import Following
from .errors import NotStoppable, Unreachable
from .refusals import ask

T = TypeVar("T")

STOP = '{"event": "stop"}'


class Reading(Generic[T]):
    """A stream that is being read. Nothing is read that was not asked for: at most one piece of it is kept.

    Without `convert` its events are the frames.
    """

    def __init__(self, core: Following, convert: Callable[[Frame], T] | None) -> None:
        self._core = core
        self._convert = convert
        self._flow: Flow[None] = core.run()
        self._reply: Any = None
        self._pending: deque[Frame] = deque()
        self._cursor = core.cursor
        self._error: Exception | None = None
        self._is_busy = False
        self._is_left = False

    @property
    def cursor(self) -> str | None:
        """The id of the last event that the iteration has given: `after=` it a later client goes on."""
        return self._cursor if self._pending else self._core.cursor

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended; None before that, and where the server does not say it."""
        return self._core.outcome

    @property
    def address(self) -> str | None:
        """Where the stream itself is, if its server has said so."""
        return self._core.address

    @property
    def media_type(self) -> str | None:
        """Of the answer, like `text/event-stream`; `websocket` of a socket, None before there is one."""
        return self._core.media_type

    def _pop(self) -> T:
        frame: Any = self._pending.popleft()
        if frame.id is not None:
            self._cursor = frame.id
        event: T = frame if self._convert is None else self._convert(frame)
        return event

    def _begin(self) -> None:
        """Somebody waits for events: nobody else may, and not after the end."""
        if self._is_busy or self._is_left or self._error is not None:
            self._refuse()
        self._is_busy = True

    def _refuse(self) -> NoReturn:
        if self._error is not None:
            raise self._error
        if self._is_left:
            raise RuntimeError("expected to read inside of the block, but the stream was left")
        raise RuntimeError("expected one reader of a stream at a time, but another one waits for its next event")

    def _next_command(self) -> Command | None:
        """What the core wants now; None at the end, or when the stream was left meanwhile."""
        if self._is_left:
            return None
        reply, self._reply = self._reply, None
        try:
            return self._flow.send(reply)
        except StopIteration:
            return None

    def _take(self, frames: Sequence[Frame]) -> None:
        """What the core gives; nothing says that the stream is open."""
        if frames:
            self._pending.extend(frames)
        else:
            self._cursor = self._core.cursor

    def _break_off(self, error: BaseException) -> None:
        """What was being done is not. After an error nothing more comes; else the core goes on, by a new connection."""
        self._error = error if isinstance(error, Exception) else None
        self._reply = Failed("the reading was interrupted", ours=True)

    def _stopping(self) -> Flow[None]:
        """Ask the server to stop the stream; NotStoppable if there is no way."""
        plan = self._core.plan
        if plan.is_socket:
            reply = yield Say(STOP)
            if isinstance(reply, Failed):
                raise Unreachable(reply.reason, 1)
            return
        if (address := self._core.stop_address) is None:
            raise NotStoppable
        headers = {name: value for name, value in plan.headers.items() if not name.lower().startswith("content-")}
        timeouts = plan.timeouts
        request = Open("POST", address, headers, None, timeouts.connect, timeouts.idle)
        yield from ask(request, plan.retry, repeatable=True, total=timeouts.total)

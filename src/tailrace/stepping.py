"""Tasks that sleep until there is news, and are stepped together.

To wake a task through a future takes a future, a handle and a callback of the event loop for each task. Here, a task
awaits its `Sleeper`, which keeps what would wake it, and one callback of the event loop steps all tasks. Each of these
steps is an ordinary step of an ordinary task: the task is the current one, its context is current, and it may await
anything and be cancelled anywhere. A task that has something simple to do at each news may leave that to the callback,
and sleep on: see `Sleeper.act`. If that is nearly all it has to do, it may even end, and a new task begins when one is
needed: see `Sleeper.add_done_callback`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import Context
from time import perf_counter
from typing import Any, TypeAlias

from .coroutine import begin

HOLD = 0.002
"""Seconds of steps after which the event loop may run something else."""

STEPS = 8
"""The number of steps between two looks at the clock."""

_Future: TypeAlias = "asyncio.Future[None]"
_Step: TypeAlias = "tuple[Sleeper, Context, Callable[[_Future], object]]"
"""The sleeper, the context of its task, and the function that continues the task with a future that is done."""


class Sleeper:
    """An awaitable for one task, which sleeps in it until there is news, again and again.

    To the task it is a future (see `asyncio.isfuture`), but one that two tasks or callbacks cannot share.
    """

    __slots__ = ("_asyncio_future_blocking", "_must_wake", "_sleepers", "act", "rest")

    def __init__(self, sleepers: Sleepers) -> None:
        self._sleepers = sleepers
        self._asyncio_future_blocking = False
        self._must_wake = False
        self.act: Callable[[], Awaitable[None] | None] | None = None
        """A function to call instead of waking the task, if several sleep. If it returns None, the task wakes.

        What it returns is awaited in no task, and the task sleeps on. If that has to wait or fails, the task wakes and
        must await `rest`. Half the time of a broadcast is what each task's own step takes (measured).
        """
        self.rest: Awaitable[None] | None = None
        """The rest of a send that `act` began, or its error. The task sets this to None, and then awaits it."""

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        # Measured: a generator is slower, and takes 100 bytes more of each task that sleeps.
        return iter((self,))  # type: ignore[return-value]  # `await` accepts any iterator

    @property
    def asleep(self) -> bool:
        """True while a task sleeps. Another one must not await this then, because the first would not wake."""
        return self in self._sleepers

    def wake(self) -> None:
        """Step the task soon, if it sleeps."""
        self._must_wake = True
        self.nudge()

    def nudge(self) -> None:
        """Do as `wake`, but call `act` first if there is one."""
        if (step := self._sleepers.pop(self, None)) is not None:
            self._sleepers.step_soon((step,))

    # The task calls these when it begins to wait, and when it is cancelled meanwhile. Tools that look at what a task
    # waits for call `done`: `anyio.wait_all_tasks_blocked`, for one.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._sleepers.loop

    def add_done_callback(self, proceed: Callable[[_Future], object], *, context: Context) -> None:
        """Call `proceed` once there is news. Without a task, this falls asleep as `await` does, and `act` is called."""
        self._sleepers[self] = self, context, proceed

    def done(self) -> bool:
        return self not in self._sleepers

    def cancel(self, msg: Any = None) -> bool:
        """Step the task. It raises CancelledError in that step, because this returns False."""
        self.wake()
        return False


class Sleepers(dict[Sleeper, _Step]):
    """The tasks that sleep until the same news, in the order in which they fell asleep.

    It is a dict because a log asks at each write whether it is empty.
    """

    __slots__ = ("_acting", "_done", "_due", "loop")

    loop: asyncio.AbstractEventLoop
    _done: _Future

    def __init__(self) -> None:
        self._due: deque[_Step] | None = None  # not empty; its next steps are scheduled
        self._acting: Sleeper | None = None

    def sleeper(self) -> Sleeper:
        """Return a sleeper for one task. Raise RuntimeError if no event loop runs."""
        loop = asyncio.get_running_loop()
        if getattr(self, "loop", None) is not loop:
            # An earlier loop has ended, with its tasks.
            self.clear()
            self._due = None
            self.loop = loop
            self._done = loop.create_future()
            self._done.set_result(None)
        return Sleeper(self)

    def wake_all(self) -> None:
        """Step all tasks soon. None of them runs before this returns."""
        if len(self) == 1:  # most logs have one reader
            _, (_, context, proceed) = self.popitem()
            self.loop.call_soon(proceed, self._done, context=context)
        elif self:
            self.step_soon(self.values())
            self.clear()

    def rouse_all(self) -> None:
        """Wake all tasks, and those that are due: none of them leaves this to its `act`, which looks for entries."""
        for sleeper in (*self, *(step[0] for step in self._due or ())):
            sleeper._must_wake = True
        self.wake_all()

    def step_soon(self, steps: Iterable[_Step]) -> None:
        """Take the steps in a callback of the event loop, after those that are due already."""
        if self._due is not None:
            self._due.extend(steps)
        else:
            self._due = deque(steps)
            self.loop.call_soon(self._step)

    def _step(self) -> None:
        """Take the steps that are due, as many as fit into HOLD seconds. Each may add to them."""
        try:
            if (rest := begin(self._steps())) is not None:
                self._hand_over(rest)
        finally:
            self._acting = None
            if self._due:
                self.loop.call_soon(self._step)
            else:
                self._due = None

    async def _steps(self) -> None:
        # Measured: awaiting all that is to be sent in one coroutine takes a third less than a `begin` for each.
        due, done = self._due, self._done
        assert due is not None
        end = perf_counter() + HOLD
        while due and perf_counter() < end:
            for _ in range(min(STEPS, len(due))):
                step = due.popleft()
                sleeper = step[0]
                act = sleeper.act
                if act is not None and not sleeper._must_wake:
                    self._acting = sleeper
                    self[sleeper] = step
                    if (sending := act()) is not None:
                        del step  # an error would refer to its own task, by way of this frame
                        await sending
                        if self._acting is not sleeper:
                            return  # this had to wait, so the sleeper's own task has awaited it
                        continue
                    del self[sleeper]
                sleeper._must_wake = False
                _, context, proceed = step
                try:
                    context.run(proceed, done)
                except Exception as error:  # a task keeps its own errors, so this is one of the event loop's
                    self.loop.call_exception_handler({"message": "a step failed", "exception": error})

    def _hand_over(self, rest: Awaitable[None]) -> None:
        """Let the task of the sleeper that acts await the rest, so that the others need not wait."""
        sleeper = self._acting
        assert sleeper is not None, "only what a sleeper does can wait or fail"
        sleeper.rest = rest
        if (step := self.pop(sleeper, None)) is not None:
            _, context, proceed = step
            context.run(proceed, self._done)

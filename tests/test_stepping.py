from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from tailrace import stepping
from tailrace.stepping import HOLD, STEPS, Sleeper, Sleepers
from tests.loops import LOOPS, on_each_loop
from tests.silence import silent_loop as silent_loop
from tests.sources import turns

pytestmark = pytest.mark.usefixtures("silent_loop")

LIMIT = 30.0
PLACE: ContextVar[str] = ContextVar("PLACE", default="nowhere")

Action = Callable[[], object]


class Crowd:
    """Tasks that sleep, and note each of their steps under their numbers."""

    def __init__(self) -> None:
        self.sleepers = Sleepers()
        self.steps: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._sleeper: dict[int, Sleeper] = {}

    async def add(self, count: int, action: Callable[[int], object] = lambda number: None) -> None:
        """Add tasks that call `action` in each step, and let them fall asleep."""
        for number in range(len(self.tasks), len(self.tasks) + count):
            self.tasks.append(asyncio.create_task(self._live(number, action)))
        await asyncio.sleep(0)

    async def _live(self, number: int, action: Callable[[int], object]) -> None:
        sleeper = self._sleeper[number] = self.sleepers.sleeper()
        while True:
            await sleeper
            self.steps.append(number)
            action(number)

    def act(self, number: int, act: Callable[[], Awaitable[None] | None]) -> None:
        self._sleeper[number].act = act

    def wake(self, number: int) -> None:
        self._sleeper[number].wake()


@asynccontextmanager
async def crowd(count: int, action: Callable[[int], object] = lambda number: None) -> AsyncIterator[Crowd]:
    tasks = Crowd()
    await tasks.add(count, action)
    try:
        async with asyncio.timeout(LIMIT):
            yield tasks
    finally:
        for task in tasks.tasks:
            task.cancel()
        await asyncio.gather(*tasks.tasks, return_exceptions=True)
    assert not tasks.sleepers


async def asleep(life: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task and let it fall asleep."""
    task = asyncio.create_task(life)
    await asyncio.sleep(0)
    return task


async def sleep(sleeper: Sleeper) -> None:
    await sleeper


# Waking


@on_each_loop
async def test_all_tasks_are_stepped_in_the_order_in_which_they_fell_asleep() -> None:
    async with crowd(100) as tasks:
        for _ in range(3):
            tasks.sleepers.wake_all()
            assert not tasks.sleepers
            await turns(2)
        assert tasks.steps == [*range(100)] * 3
        assert tasks.sleepers._due is None  # nothing is scheduled any more


@on_each_loop
async def test_nobody_is_stepped_while_others_are_being_woken() -> None:
    for count in 1, 2:
        async with crowd(count) as tasks:
            tasks.sleepers.wake_all()
            tasks.sleepers.wake_all()
            assert tasks.steps == []
            await turns(2)
            assert tasks.steps == [*range(count)]


@on_each_loop
async def test_one_task_is_woken_alone_and_in_its_turn() -> None:
    async with crowd(4) as tasks:
        tasks.wake(2)
        tasks.wake(2)
        await turns(2)
        assert tasks.steps == [2]
        tasks.wake(1)
        tasks.sleepers.wake_all()
        tasks.wake(1)
        await turns(2)
        assert tasks.steps == [2, 1, 0, 3, 2]


@on_each_loop
async def test_roused_tasks_are_stepped_themselves_though_they_are_due_to_act() -> None:
    for count in 1, 2, 20:
        async with crowd(count) as tasks:
            for number in range(count):
                tasks.act(number, lambda: asyncio.sleep(0))
            tasks.sleepers.wake_all()
            tasks.sleepers.rouse_all()
            await turns(3)
            assert tasks.steps == [*range(count)]
            tasks.steps.clear()
            tasks.sleepers.rouse_all()
            await turns(3)
            assert tasks.steps == [*range(count)]


@on_each_loop
async def test_one_that_is_awake_cannot_be_woken() -> None:
    sleeper = Sleepers().sleeper()
    sleeper.wake()
    sleeping = await asleep(sleep(sleeper))
    await turns()
    assert not sleeping.done()
    sleeper.wake()
    await asyncio.wait_for(sleeping, LIMIT)


@on_each_loop
async def test_one_that_joins_during_a_step_waits_for_the_next_news() -> None:
    async with crowd(1, lambda number: tasks.tasks.append(asyncio.ensure_future(tasks._live(1, print)))) as tasks:
        tasks.sleepers.wake_all()
        await turns(3)
        assert (tasks.steps, len(tasks.sleepers)) == ([0], 2)


@on_each_loop
async def test_news_during_the_steps_reach_those_that_were_stepped_already_and_the_others_once() -> None:
    def publish(number: int) -> None:
        if number == 1 and len(tasks.steps) == 2:
            tasks.sleepers.wake_all()

    async with crowd(3, publish) as tasks:
        tasks.sleepers.wake_all()
        await turns(4)
        assert tasks.steps == [0, 1, 2, 0]


@on_each_loop
async def test_a_sleeper_knows_whether_a_task_sleeps() -> None:
    sleeper = Sleepers().sleeper()
    assert not sleeper.asleep
    task = await asleep(sleep(sleeper))
    assert sleeper.asleep
    sleeper.wake()
    assert not sleeper.asleep
    await asyncio.wait_for(task, LIMIT)


def test_a_sleeper_belongs_to_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Sleepers().sleeper()


@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_later_loop_finds_nothing_of_one_that_was_closed_in_the_middle(loop_name: str) -> None:
    sleepers = Sleepers()

    def fall_asleep(count: int) -> None:
        for _ in range(count):
            sleepers.sleeper().add_done_callback(lambda _: None, context=copy_context())

    async def leave_due_and_asleep() -> None:
        fall_asleep(3)
        asyncio.get_running_loop().call_soon(sleepers.wake_all)
        asyncio.get_running_loop().call_soon(fall_asleep, 1)

    async def wake() -> None:
        tasks = [await asleep(sleep(sleepers.sleeper())) for _ in range(2)]
        assert len(sleepers) == 2
        sleepers.wake_all()
        await asyncio.wait_for(asyncio.gather(*tasks), LIMIT)

    loop = LOOPS[loop_name]()
    loop.run_until_complete(leave_due_and_asleep())
    loop.close()
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(wake())


# What a step finds


@on_each_loop
async def test_a_step_is_one_of_its_task_in_its_context() -> None:
    sleepers, found = Sleepers(), []

    async def live(name: str) -> None:
        PLACE.set(name)
        sleeper = sleepers.sleeper()
        task = asyncio.current_task()
        for _ in range(3):
            await sleeper
            found.append((PLACE.get(), asyncio.current_task() is task))
            token = PLACE.set(f"{name} again")
            PLACE.reset(token)  # which is refused in any other context

    tasks = [await asleep(live(name)) for name in ("a", "b")]
    for _ in range(3):
        sleepers.wake_all()
        await turns(2)
    await asyncio.wait_for(asyncio.gather(*tasks), LIMIT)
    assert found == [("a", True), ("b", True)] * 3
    assert PLACE.get() == "nowhere"


@on_each_loop
async def test_a_step_may_await_anything_else_before_its_task_sleeps_again() -> None:
    sleepers, loop = Sleepers(), asyncio.get_running_loop()
    lock, event = asyncio.Lock(), asyncio.Event()
    sending, receiving = anyio.create_memory_object_stream[str](0)
    done: list[str] = []

    async def live() -> None:
        sleeper = sleepers.sleeper()
        await sleeper
        await asyncio.sleep(0)
        async with lock:
            await event.wait()
        with anyio.fail_after(LIMIT):
            await sending.send("sent")
        await loop.run_in_executor(None, done.append, "in a thread")
        await sleeper
        done.append("twice")

    tasks = [await asleep(live()) for _ in range(2)]
    sleepers.wake_all()
    await turns()
    event.set()
    async with asyncio.timeout(LIMIT):
        assert [await receiving.receive() for _ in tasks] == ["sent", "sent"]
        while len(sleepers) < 2:  # noqa: ASYNC110 - nobody says that a task sleeps
            await asyncio.sleep(0.001)
        sleepers.wake_all()
        await asyncio.gather(*tasks)
    assert done == ["in a thread", "in a thread", "twice", "twice"]
    sending.close()
    receiving.close()


# Being cancelled


@on_each_loop
async def test_a_sleeping_task_is_cancelled_and_the_others_sleep_on() -> None:
    async with crowd(3) as tasks:
        assert tasks.tasks[1].cancel("enough")
        assert len(tasks.sleepers) == 2
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await tasks.tasks[1]
        tasks.sleepers.wake_all()
        await turns(2)
        assert tasks.steps == [0, 2]


@on_each_loop
async def test_a_task_whose_step_is_due_is_cancelled_in_it() -> None:
    async with crowd(3) as tasks:
        tasks.sleepers.wake_all()
        tasks.tasks[1].cancel()
        await turns(2)
        assert tasks.tasks[1].cancelled()
        assert tasks.steps == [0, 2]


@on_each_loop
async def test_a_step_may_cancel_others_asleep_or_due() -> None:
    def cancel(number: int) -> None:
        for other in {1, 2, 3} - {number}:
            tasks.tasks[other].cancel()

    async with crowd(4, lambda number: cancel(number) if number == 1 else None) as tasks:
        tasks.wake(0)
        tasks.wake(1)
        tasks.wake(2)  # number 3 sleeps
        await turns(3)
        assert tasks.steps == [0, 1]
        assert [task.cancelled() for task in tasks.tasks] == [False, False, True, True]


@on_each_loop
async def test_a_task_that_is_cancelled_twice_ends_once() -> None:
    async with crowd(1) as tasks:
        tasks.tasks[0].cancel()
        tasks.tasks[0].cancel()
        await turns(2)
        assert tasks.tasks[0].cancelled()
        assert tasks.tasks[0].cancelling() == 2


@on_each_loop
async def test_a_timeout_around_the_sleep_expires_or_does_not() -> None:
    sleepers = Sleepers()
    sleeper = sleepers.sleeper()
    found: list[str] = []

    async def live() -> None:
        for limit in 0.001, LIMIT:
            try:
                async with asyncio.timeout(limit):
                    await sleeper
                found.append("woken")
            except TimeoutError:
                found.append("late")
                assert not sleepers
                asyncio.get_running_loop().call_soon(sleeper.wake)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    await asyncio.wait_for(asyncio.create_task(live()), LIMIT)
    assert found == ["late", "woken"]


@on_each_loop
async def test_a_scope_of_anyio_around_the_sleep_is_cancelled() -> None:
    sleeper = Sleepers().sleeper()
    async with asyncio.timeout(LIMIT):
        with anyio.move_on_after(0.001) as scope:
            await sleeper
        assert scope.cancelled_caught


@on_each_loop
async def test_anyio_can_wait_until_all_others_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(stepping, "perf_counter", lambda: next(looks) * HOLD / 2)  # STEPS steps, then something else
    async with crowd(3 * STEPS) as tasks:
        await anyio.wait_all_tasks_blocked()
        tasks.sleepers.wake_all()
        await anyio.wait_all_tasks_blocked()
        assert tasks.steps == [*range(3 * STEPS)]


# Failures


@on_each_loop
async def test_a_task_that_fails_keeps_its_error_and_the_others_go_on() -> None:
    def fail(number: int) -> None:
        if number == 1:
            raise LookupError("lost")

    async with crowd(3, fail) as tasks:
        tasks.sleepers.wake_all()
        await turns(2)
        assert tasks.steps == [0, 1, 2]
        with pytest.raises(LookupError, match="lost"):
            await tasks.tasks[1]


@on_each_loop
async def test_a_failure_of_the_step_itself_is_told_to_the_loop_and_the_others_go_on() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    error = RuntimeError("cannot enter into task")

    def fail(future: object) -> None:
        raise error

    async with crowd(1) as tasks:
        tasks.sleepers.sleeper().add_done_callback(fail, context=copy_context())
        await tasks.add(1)
        tasks.sleepers.wake_all()
        await turns(2)
        assert tasks.steps == [0, 1]
    assert [context["exception"] for context in told] == [error]


@pytest.mark.parametrize("loop_name", LOOPS)
def test_an_exit_in_a_step_leaves_the_steps_behind_it_due(loop_name: str) -> None:
    steps: list[object] = []

    def wake() -> None:
        sleepers = Sleepers()
        for action in steps.append, lambda _: sys.exit(3), steps.append:
            sleepers.sleeper().add_done_callback(action, context=copy_context())
        sleepers.wake_all()

    loop = LOOPS[loop_name]()
    loop.call_soon(wake)
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_until_complete(turns())
    assert len(steps) == 2
    loop.close()


# Many


@on_each_loop
async def test_the_loop_runs_something_else_in_the_middle_of_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    # A look at the clock takes a fourth of what the loop may be held.
    monkeypatch.setattr(stepping, "perf_counter", lambda: next(looks) * HOLD / 4)
    async with crowd(100) as tasks:
        tasks.sleepers.wake_all()
        counts = []
        while len(tasks.steps) < 100:
            await asyncio.sleep(0)
            counts.append(len(tasks.steps))
        at_once = 3 * STEPS
        assert counts == [*range(at_once, 100, at_once), 100]


@on_each_loop
async def test_the_loop_is_held_no_longer_than_there_are_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(stepping, "perf_counter", lambda: next(looks) * HOLD / 100)
    async with crowd(2) as tasks:
        tasks.sleepers.wake_all()
        await turns(2)
        assert tasks.steps == [0, 1]
        assert next(looks) == 2  # one for the end, and one before the steps


@on_each_loop
async def test_ten_thousand_steps_hold_the_loop_for_a_few_milliseconds_at_a_time() -> None:
    count, work = 10_000, 20e-6
    holds: list[float] = []
    sleeping = True

    def busy(number: int) -> None:
        end = time.perf_counter() + work
        while time.perf_counter() < end:
            pass

    async def watch() -> None:
        # The time of this thread does not count what other programs take on a busy machine.
        while sleeping:
            before = time.thread_time()
            await asyncio.sleep(0)
            holds.append(time.thread_time() - before)

    gc.collect()
    gc.freeze()  # a collection would be measured, too
    try:
        async with crowd(count, busy) as tasks:
            watching = asyncio.create_task(watch())
            await asyncio.sleep(0)
            del holds[:]
            before = time.thread_time()
            tasks.sleepers.wake_all()
            publishing = time.thread_time() - before
            while len(tasks.steps) < count:  # noqa: ASYNC110 - nobody says that all were stepped
                await asyncio.sleep(0)
            sleeping = False
            await watching
    finally:
        gc.unfreeze()
    assert tasks.steps == [*range(count)]
    assert sum(holds) > count * work / 2
    assert publishing < 0.005
    assert max(holds) < 0.010


# What a sleeper does while its task sleeps on


async def nothing() -> None:
    """Wait for nothing."""


async def test_a_sleeper_may_act_while_its_task_sleeps_on() -> None:
    sleepers = Sleepers()
    acts: list[int] = []
    woken: list[int] = []

    async def sleep(number: int) -> None:
        sleeper = sleepers.sleeper()

        def act() -> Awaitable[None] | None:
            acts.append(number)
            return nothing() if len(acts) <= 2 else None

        sleeper.act = act
        while True:
            await sleeper
            woken.append(number)

    tasks = [asyncio.create_task(sleep(number)) for number in range(2)]
    await asyncio.sleep(0)
    for _ in range(2):
        sleepers.wake_all()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (acts, woken) == ([0, 1, 0, 1], [0, 1])
    sleepers.wake_all()
    tasks[1].cancel()  # its act is due, but it must wake
    await asyncio.wait([tasks[1]])
    assert acts[4:] == [0]
    tasks[0].cancel()
    await asyncio.wait(tasks)


@on_each_loop
async def test_a_task_that_woke_instead_of_acting_is_stepped_by_no_further_news() -> None:
    sleepers, gate = Sleepers(), asyncio.Event()

    async def sleep() -> None:
        sleeper = sleepers.sleeper()
        sleeper.act = lambda: None
        await sleeper
        assert not sleeper.asleep
        await gate.wait()

    tasks = [asyncio.create_task(sleep()) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(2):
        sleepers.wake_all()
        await turns(3)
    gate.set()
    await asyncio.gather(*tasks)


class Acting:
    """Tasks that leave their news to an act, which awaits `work`. They note what they had to await themselves."""

    def __init__(self, count: int, work: Callable[[int], Awaitable[None] | None]) -> None:
        self.sleepers = Sleepers()
        self.sleeping: list[Sleeper] = []
        self.woken: list[object] = []
        self.tasks = [asyncio.create_task(self._live(number, work)) for number in range(count)]

    async def _live(self, number: int, work: Callable[[int], Awaitable[None] | None]) -> None:
        sleeper = self.sleepers.sleeper()
        self.sleeping.append(sleeper)
        sleeper.act = lambda: work(number)
        while True:
            await sleeper
            self.woken.append(number)
            if (rest := sleeper.rest) is not None:
                sleeper.rest = None
                try:
                    await rest
                except OSError as error:
                    self.woken.append(str(error))


@asynccontextmanager
async def acting(count: int, work: Callable[[int], Awaitable[None] | None]) -> AsyncIterator[Acting]:
    acting = Acting(count, work)
    await asyncio.sleep(0)
    try:
        yield acting
    finally:
        for task in acting.tasks:
            task.cancel()
        await asyncio.wait(acting.tasks)


@on_each_loop
async def test_an_act_that_has_to_wait_is_awaited_by_its_own_task_and_delays_nobody() -> None:
    gate, done = asyncio.Event(), list[int]()

    async def work(number: int) -> None:
        if number == 1:
            await gate.wait()
        done.append(number)

    async with acting(4, work) as tasks:
        tasks.sleepers.wake_all()
        await turns(3)
        assert (done, tasks.woken) == ([0, 2, 3], [1])
        assert [sleeper.asleep for sleeper in tasks.sleeping] == [True, False, True, True]
        tasks.sleepers.wake_all()
        await turns(3)
        assert (done, tasks.woken) == ([0, 2, 3] * 2, [1])
        gate.set()
        await turns(3)
        assert (done, tasks.woken) == ([0, 2, 3] * 2 + [1], [1])
        done.clear()
        tasks.sleepers.wake_all()
        await turns(3)
        assert (sorted(done), tasks.woken) == ([0, 1, 2, 3], [1])


@on_each_loop
async def test_a_task_that_awaits_what_its_act_began_does_not_act_for_others() -> None:
    found: list[object] = []

    async def work(number: int) -> None:
        found.append(asyncio.current_task())
        time.sleep(HOLD / 4)  # so that others are still due when the first one goes on
        if number == 0:
            await asyncio.sleep(0)

    async with acting(4 * STEPS, work) as tasks:
        tasks.sleepers.wake_all()
        await turns(10)
        assert found == [None] * 4 * STEPS
        assert tasks.woken == [0]


@on_each_loop
async def test_an_act_that_fails_wakes_its_task_alone() -> None:
    done: list[int] = []

    def work(number: int) -> Awaitable[None]:
        async def fail() -> None:
            raise OSError("gone")

        if number == 0:
            raise OSError("not even begun")
        done.append(number)
        return fail() if number == 2 else nothing()

    async with acting(4, work) as tasks:
        tasks.sleepers.wake_all()
        await turns(4)
        assert done == [1, 2, 3]
        assert tasks.woken == [0, "not even begun", 2, "gone"]
        assert all(sleeper.asleep for sleeper in tasks.sleeping)


@on_each_loop
async def test_one_that_is_woken_by_its_own_act_wakes_after_it() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)
        tasks.sleeping[number].wake()

    async with acting(2, work) as tasks:
        tasks.sleepers.wake_all()
        await turns(3)
        assert (done, tasks.woken) == ([0, 1], [0, 1])
        tasks.sleepers.wake_all()
        await turns(3)
        assert (done, tasks.woken) == ([0, 1] * 2, [0, 1] * 2)


@on_each_loop
async def test_one_that_is_woken_by_its_own_act_awaits_the_rest_of_it() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        tasks.sleeping[number].wake()
        await asyncio.sleep(0)
        done.append(number)

    async with acting(2, work) as tasks:
        tasks.sleepers.wake_all()
        await turns(4)
        assert (done, tasks.woken) == ([0, 1], [0, 1])

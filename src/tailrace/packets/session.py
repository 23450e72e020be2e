"""A packet session: an inbox whose packets go to a hook, and an outbox that the client reads."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Any, TypeVar

from anyio import from_thread
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from ..cursor import new_stream_id
from ..errors import LogClosed, LogFenced, LogReset, StreamError
from ..events import Entries, Outcome
from ..flow import Flow, LogStatistics
from ..log.base import Log
from ..packet import PacketType, RequestFailed, SocketPacket
from ..producer import UNTOLD, Producer, State
from ..routing.endpoints import describe_http_error
from ..stepping import HOLD, STEPS
from ..wire.packets import RESULT, RESULT_SENT
from .hooks import Hooks
from .inbox import Inbox, Rules

T = TypeVar("T")

logger = logging.getLogger("tailrace")


class SessionState(Enum):
    """The state of a session in the process that opened it."""

    CONNECTING = "connecting"
    OPEN = "open"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A session's current numbers.

    - `handled`, `pending`: packets that the read hook was called with, and packets that wait for it.
    - `repeated`: packets that came again, and that the hook was not called with again.
    - `behind`: how many packets the client has yet to be sent. Under the policy `block`, `send` waits at `high`.
    - `outbox`: the numbers of the log that the client reads.
    """

    state: str
    handled: int
    pending: int
    repeated: int
    behind: int
    policy: str
    high: int
    outbox: LogStatistics


class ClientSession:
    """A duplex exchange of packets with one client, as the hooks see it.

    The process that opened the session runs its hooks, one at a time: first the connect hook, then the read hook with
    each packet in the order of arrival, and last the disconnect hook, however the session ends.
    """

    def __init__(
        self, producer: Producer, inbox: Inbox, hooks: Hooks, *, rules: Rules, principal: Any, flow: Flow
    ) -> None:
        """Make a session around the producer of its outbox. The router does this.

        `principal` is the user that opened the session, as the router's dependency gave it, or None.
        """
        self.id = producer.log.stream
        self.principal = principal
        self.state = SessionState.CONNECTING
        self.outbox: Log = producer.log
        self.inbox = inbox
        self._producer = producer
        self._hooks = hooks
        self._rules = rules
        self._window = rules.limits.window
        self._flow = flow
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._refusal: HTTPException | None = None  # what the connect hook raised instead of accepting the session
        self._handled = 0
        self._repeated = 0
        self._seen: OrderedDict[str, None] = OrderedDict()  # the ids of the last packets, oldest first
        self._requests: set[str] = set()  # the ids of packets that wait for an answer
        self._answered: set[int] = set()  # the offsets of answers that a request took before the hook's turn

    @property
    def dead(self) -> bool:
        """True once the session must end: after a RESULT, `die`, an error, or when the client has left for good."""
        return self.state is SessionState.DEAD or self._producer.state is not State.RUNNING

    async def send(self, packet: SocketPacket) -> None:
        """Send a packet to the client. A RESULT is the last one and ends the session.

        Under the flow policy `block`, wait while the client is too far behind. Raise EventError for a payload that is
        not JSON-able, ValueError for an unknown packet type, and LogClosed after the end. Once the session is to end,
        other packets are still sent while hooks run, but a RESULT raises LogClosed, too.
        """
        if packet.packet_type not in self._rules.types:
            known, got = ", ".join(sorted(self._rules.types)), packet.packet_type
            raise ValueError(f"expected a packet type among {known}, but got {got!r}")
        if packet.packet_type == RESULT:
            await self._producer.send(packet, last=RESULT_SENT)
            self.inbox.tail.close()  # the hooks get no more packets
        else:
            await self._producer.send(packet)

    def send_from_thread(self, packet: SocketPacket) -> None:
        """Do as `send` does, from a sync hook.

        A thread cannot be cancelled. So this raises LogClosed as soon as the session is to end.
        """
        if self.dead:
            raise LogClosed(self.outbox.name, "cancelled" if self.outbox.outcome is None else self.outbox.outcome.state)
        from_thread.run(self.send, packet)

    async def request(self, packet: SocketPacket, *, timeout: float = 30.0) -> SocketPacket:  # noqa: ASYNC109
        """Send a packet and return the client's answer, which is the first packet with its id as `reply_to`.

        A packet without an id gets one. The read hook does not get the answer. Raise RequestFailed if it is an ERROR,
        TimeoutError if there is none within `timeout` seconds, and LogClosed if the session ends before.
        """
        if (name := packet.id) is None:
            packet = packet.model_copy(update={"id": (name := new_stream_id())})
        self._requests.add(name)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask(packet, name)
        except TimeoutError:
            raise TimeoutError(f"expected an answer to packet {name!r} within {timeout:g} s, but got none") from None
        finally:
            self._requests.discard(name)
        if answer.packet_type == PacketType.ERROR:
            raise RequestFailed(answer)
        return answer

    def die(self, message: str = "the server has ended the session") -> None:
        """End the session. The running hook is cancelled, and the client gets a packet CANCELLED with the message.

        You may call this from any thread. Do nothing if the session ends already.
        """
        if _running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self.die, message)
        elif not self.dead:
            self._producer.stop(Outcome("cancelled", "died", message))

    def create_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine beside the hooks. An error in it ends the session, as in a hook.

        It is cancelled when the session ends, and awaited before the disconnect hook is called. After a RESULT, it may
        go on for 5 seconds. Raise RuntimeError if the session has not begun to connect, or has ended.
        """
        attended = self._attend(work)
        try:
            return self._tasks.create_task(attended)
        except RuntimeError:
            attended.close()
            work.close()
            raise

    async def wait_dead(self) -> None:
        """Wait until the session has ended and its disconnect hook is done."""
        await self._producer.wait()

    def statistics(self) -> SessionStatistics:
        """Return the session's current numbers."""
        outbox = self.outbox
        return SessionStatistics(
            state=self.state.value,
            handled=self._handled,
            pending=self.inbox.pending,
            repeated=self._repeated,
            behind=outbox.top - outbox.furthest,
            policy=self._flow.policy,
            high=self._flow.high,
            outbox=outbox.statistics(),
        )

    # The life of a session

    async def run(self) -> None:
        """Run the hooks until the session ends, in the producer's task. Cancelling the task ends the session.

        Raise HTTPException if the connect hook refuses the session by one.
        """
        try:
            async with self._tasks:
                await self._connect()
                await self._read()
        except ExceptionGroup:
            if self._refusal is not None:
                raise self._refusal from None
            # The client has been told of any other failure already.
        finally:
            self.state = SessionState.DEAD
            if self._refusal is None:
                await self._disconnect()

    async def _connect(self) -> None:
        try:
            await self._hooks.connect(self)
        except Exception as error:  # a hook may raise anything
            if isinstance(error, HTTPException) and not self._producer.begun:
                self._refusal = error
            else:
                await self._fail("the connect hook", error)
            raise
        if not self.dead:
            self.state = SessionState.OPEN
        self._producer.begin()

    async def _read(self) -> None:
        inbox = self.inbox
        try:
            async for entries in inbox.tail:
                if not await self._take(entries):
                    return
                await inbox.report(len(entries) - len(entries.events))
        except LogReset as reset:
            logger.error("session %s: its inbox is lost (%s)", self.id, reset.reason)
        if not self.dead:
            await self._fail(
                "the inbox", StreamError("the server has lost packets of this session", code="packets_lost")
            )

    async def _take(self, entries: Entries) -> bool:
        """Call the read hook with the packets of a batch. Return False if the session is to end before the last one."""
        inbox, hook = self.inbox, self._hooks.packet
        end = perf_counter() + HOLD
        for count, (offset, json) in enumerate(zip(entries.offsets, entries.json, strict=True), 1):
            if count % STEPS == 0 and perf_counter() > end:
                await asyncio.sleep(0)
                end = perf_counter() + HOLD
            if self.dead:
                await asyncio.sleep(0)  # a cancellation arrives here, and not in the disconnect hook
                return False
            # The packets have no names.
            if offset not in entries.events and self._is_due(offset, packet := inbox.take(offset, json)):
                self._handled += 1
                try:
                    await hook(self, packet)
                except Exception as error:  # a hook may raise anything
                    await self._fail("the read hook", error)
                    raise
            inbox.taken = offset
        return True

    def _is_due(self, offset: int, packet: SocketPacket) -> bool:
        """Tell whether the read hook gets a packet, which is neither a repetition nor a request's answer."""
        if packet.id is not None and not self._is_new(packet.id):
            self._repeated += 1
            return False
        if offset in self._answered:
            self._answered.discard(offset)
            return False
        return packet.reply_to not in self._requests

    async def _attend(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except Exception as error:  # a task may raise anything
            await self._fail("a task", error)
            raise

    async def _disconnect(self) -> None:
        try:
            await self._hooks.disconnect(self)
        except Exception:  # a hook may raise anything, and the session has ended all the same
            logger.exception("session %s: the disconnect hook raised", self.id)

    async def _fail(self, place: str, error: Exception) -> None:
        """End the session by an error packet. Log an error that the client is not told of.

        The client is told at once, however long the disconnect hook takes.
        """
        if isinstance(error, LogClosed | LogFenced) and error.name == self.outbox.name and self.dead:
            return  # something was sent too late
        outcome = describe_http_error(error)
        if outcome.code in UNTOLD:
            logger.error("session %s: %s raised", self.id, place, exc_info=error)
            outcome = Outcome("error", "hook_failed", f"the server failed in {place}")
        self._producer.begin()  # with status 200, because an error packet follows
        await self._producer.finish(outcome)

    def _is_new(self, name: str) -> bool:
        if name in self._seen:
            self._seen.move_to_end(name)  # the packets that follow it may be repeated, too
            return False
        self._seen[name] = None
        if len(self._seen) > self._window:
            self._seen.popitem(last=False)
        return True

    async def _ask(self, packet: SocketPacket, name: str) -> SocketPacket:
        """Send a request and wait for its answer, by a reader of the inbox that may be ahead of the hook's."""
        inbox, spelled = self.inbox, to_json(name)
        with inbox.log.tail(inbox.log.top) as tail:
            await self.send(packet)
            async for entries in tail:
                for offset, json in zip(entries.offsets, entries.json, strict=True):
                    if spelled in json and (answer := inbox.decode(json)).reply_to == name:
                        if offset > inbox.taken:
                            self._answered.add(offset)
                        return answer
        raise LogClosed(self.outbox.name, "cancelled")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

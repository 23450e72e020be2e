"""Follow a stream across connections. Decide what to request and deliver, and when to wait and end, without I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..cursor import is_cursor
from ..errors import DecodeError, Truncated
from ..events import DONE, Farewell, Outcome, Reset
from ..wire.base import Decoder, Frame
from ..wire.batch import Batch
from ..wire.openai import is_unfinished, read_failure
from ..wire.text import Text
from ..wire.websocket import NO_STATUS, NORMAL, POLICY_VIOLATION, REPLACED
from .errors import StreamFailed, StreamLost, StreamRefused, StreamReset
from .requests import NOT_DEALT_WITH, UNAVAILABLE, UNKNOWN, named_address, read_refusal, send, stop_link, with_parameter
from .settings import Backoff, Deadline, Loss, LossKind, Overdue, Plan, Spent, read_retry_after, seconds_of
from .sorting import ACCEPT, End, Sorting, can_be_sent, decoder_for, media_type_of
from .transport import Close, Ended, Failed, Flow, Give, Open, Opened, Read, Sleep

_READ = Read()
_REPLACED = Loss("replaced", "another client reads this stream now")
_MOMENT = 0.01
"""The seconds by which a timer may be early."""
_PART = 1 << 13
"""The most bytes to decode at once. The objects of a larger part live so long that garbage collection gets slower."""


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + _PART] for start in range(0, len(data), _PART)]


def _decode(decoder: Decoder, part: bytes | None) -> tuple[list[Frame], DecodeError | None]:
    """Decode a part, or the end if it is None. Return the frames, and the error after them if there is one."""
    try:
        return decoder.close() if part is None else decoder.feed(part), None
    except DecodeError as error:
        return list(error.before), error


def _members(said: Frame | None) -> dict[str, Any] | None:
    return said.data if said is not None and isinstance(said.data, dict) else None


@dataclass(frozen=True, slots=True)
class _Drop:
    """The end of a connection whose stream may continue.

    The next attempt is due after exactly `told` seconds, or else after at least `at_least` seconds. If `ours`, the
    application ended the connection, and that is not a failure.
    """

    loss: Loss
    told: float | None = None
    at_least: float = 0.0
    ours: bool = False


def _drop(kind: LossKind, reason: str) -> _Drop:
    return _Drop(Loss(kind, reason))


class Following:
    """Follows one stream, from the first request to its end."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.outcome: Outcome | None = None
        self.address: str | None = None
        """The address for resuming the stream, once a response has named it."""
        self.stop_address: str | None = None
        self.media_type: str | None = None
        self.plan = plan
        self._clock = clock
        self._backoff = Backoff(plan.retry, clock=clock)
        self._sorting = Sorting(plan, self._backoff)
        self._deadline = Deadline(plan.timeouts.total, clock=clock)
        self._has_opened = False
        self._may_have_read = False  # True once the server may have a connection of ours that reads the stream
        self._quiet_since: float | None = None

    @property
    def cursor(self) -> str | None:
        """The id of the last event, or the cursor at which the response begins."""
        return self._sorting.position.token

    @property
    def degraded(self) -> bool:
        """True while the server cannot reach its store."""
        return self._sorting.degraded

    def run(self) -> Flow[None]:
        """Follow the stream until it has ended. Raise ClientError if that is impossible."""
        try:
            while True:
                drop = yield from self._connect()
                yield Close()
                self._sorting.degrade(False)  # what a connection has told ends with it
                if drop is None:
                    return
                yield from self._wait(drop)
        except Overdue as overdue:
            raise self._lost(Loss("overdue", str(overdue))) from None

    def _connect(self) -> Flow[_Drop | None]:
        """Read one connection. Return None if the stream is over."""
        reply = yield from send(self._open(), self._deadline)
        if isinstance(reply, Failed):
            self._may_have_read |= reply.sent
            return self._judge_failure(reply)
        self._has_opened = True
        if reply.status == 204:
            self._end_without_events()
            return None
        if not 200 <= reply.status < 300:
            return (yield from self._be_refused(reply))
        self._may_have_read = True
        self.media_type = media_type_of(reply.headers.get("content-type", ""))
        self._note(reply)
        has_cursors = self._sorting.position.gives_cursors
        decoder = decoder_for(self.media_type, self.plan.max_bytes, has_cursors=has_cursors)
        yield Give(())
        drop = yield from self._read_body(decoder, is_framed=reply.is_framed)
        if drop is not None:
            self._check_resumable(drop.loss)
        return drop

    def _judge_failure(self, failed: Failed) -> _Drop:
        # If the proxy has worked before, it may work again.
        if failed.error is not None and not self._has_opened:
            raise failed.error
        if failed.final:
            raise self._lost(failed.loss)
        if failed.sent and not self._may_repeat:
            raise self._lost(failed.loss, UNKNOWN)
        return _Drop(failed.loss, ours=failed.ours)

    def _lost(self, loss: Loss, note: str = "") -> StreamLost:
        return StreamLost(loss, self.cursor, note=note)

    # The request

    def _open(self) -> Open:
        plan, address, timeouts = self.plan, self.address, self.plan.timeouts
        headers = {"accept": ACCEPT, "accept-encoding": "identity", "cache-control": "no-store"}
        headers.update({name.lower(): value for name, value in plan.headers.items()})
        if address is not None:
            # These headers describe the body of the first request. This request has no body.
            headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
        elif plan.key is not None:
            headers["idempotency-key"] = plan.key
        url = address or plan.url
        if (token := self.cursor) is not None:
            headers["last-event-id"] = token
            if is_cursor(token) and (self._sorting.position.gives_cursors or token == plan.after):
                url = with_parameter(url, "after", token)
        if plan.takeover and self._may_have_read:
            url = with_parameter(url, "takeover", "true")
        method, content = (plan.method, plan.content) if address is None else ("GET", None)
        return Open(method, url, headers, content, timeouts.connect, timeouts.idle, timeouts.head)

    @property
    def _may_repeat(self) -> bool:
        """True if the next request cannot start the stream a second time."""
        if self.plan.is_safe or self.address is not None:
            return True
        position = self._sorting.position
        return position.gives_cursors and position.token is not None and is_cursor(position.token)

    # The head of the response

    def _note(self, head: Opened) -> None:
        """Keep the facts about the stream from the head of a response."""
        headers = head.headers
        cursor = headers.get("tailrace-cursor")
        is_document = self.media_type == Batch.media_type
        self._sorting.begin(cursor if cursor is not None and is_cursor(cursor) else None, is_document=is_document)
        if self.plan.is_socket:
            return  # the stream's address is for HTTP, and a message stops it
        # Requests to these addresses carry the caller's credentials, so they must have the origin of the request.
        location, link = headers.get("content-location"), stop_link(headers.get("link", ""))
        self.address = named_address(location, by=head.url, asked=head.asked) or self.address
        self.stop_address = named_address(link, by=head.url, asked=head.asked) or self.stop_address

    def _be_refused(self, head: Opened) -> Flow[_Drop | None]:
        error = yield from read_refusal(head, self._deadline.at_most(self.plan.timeouts.head))
        return (yield from self._judge_refusal(error, read_retry_after(head.headers.get("retry-after")), head.through))

    def _judge_refusal(
        self, error: StreamRefused, retry_after: float | None = None, through: str = ""
    ) -> Flow[_Drop | None]:
        if error.status == 410 and error.code == "reset":
            cursor = error.members.get("cursor")
            is_given = isinstance(cursor, str) and is_cursor(cursor)
            return (yield from self._restart(str(error.members.get("reason")), cursor if is_given else None))
        if error.status not in UNAVAILABLE:
            raise error
        # A proxy also sends these statuses if it cannot reach the server.
        loss = Loss("unavailable", str(error), through)
        if self._may_repeat or (error.status in NOT_DEALT_WITH and retry_after is not None):
            return _Drop(loss, at_least=retry_after or 0.0)
        if error.status in NOT_DEALT_WITH:
            raise error
        raise self._lost(loss, UNKNOWN) from error

    # The body

    def _read_body(self, decoder: Decoder, *, is_framed: bool) -> Flow[_Drop | None]:
        sort = self._sorting.sort
        # Where each piece is an event, do not divide it.
        is_divisible = not (self.media_type == Text.media_type or self.plan.is_socket)
        may_wait = self._may_wait
        read = self._next_read(True)
        while True:
            reply = yield read
            if not isinstance(reply, bytes):
                break
            is_new = False
            for part in _parts(reply) if is_divisible and len(reply) > _PART else (reply,):
                given, end, said = sort(*_decode(decoder, part))
                if given:
                    is_new = True
                    yield Give(given)
                if end is not None:
                    return (yield from self._obey(end, said))
            if is_new and may_wait:
                # Do not read the clock at each event. The time counts from the first read without one.
                read, self._quiet_since = _READ, None
            else:
                read = self._next_read(is_new)
        if isinstance(reply, Failed):
            if reply.loss.kind == "silent":
                self._next_read(False)
            failure = read_failure(self._sorting.last)
            return _Drop(reply.loss, ours=reply.ours) if failure is None else (yield from self._obey(failure))
        assert isinstance(reply, Ended), reply
        if reply.code is not None:
            return self._judge_close(reply.code, reply.reason)
        return (yield from self._end_body(decoder, is_framed=is_framed))

    @property
    def _may_wait(self) -> bool:
        """True if a read after a new event needs no bound, because the `idle` timeout always comes first."""
        # This never holds for a socket with an `event` timeout, because its library answers pings itself.
        timeouts = self.plan.timeouts
        is_idle_first = timeouts.event is None or (timeouts.event >= timeouts.idle and not self.plan.is_socket)
        return self._deadline.is_never and is_idle_first

    def _next_read(self, is_new: bool) -> Read:
        """Return the next read, bounded by the timeouts. Raise StreamLost if no new event came for too long."""
        deadline, idle, limit = self._deadline, self.plan.timeouts.idle, self.plan.timeouts.event
        if limit is None:
            return _READ if deadline.is_never else Read(deadline.within(idle))
        now = self._clock()
        if is_new or self._quiet_since is None:
            self._quiet_since = now
        left = self._quiet_since + limit - now
        if left < _MOMENT:
            reason = f"no new event came for {limit:g} s, though the server is there"
            raise self._lost(Loss("stalled", reason), "Timeouts(event=None) waits forever")
        return Read(deadline.within(left if self.plan.is_socket else min(left, idle)))

    def _end_body(self, decoder: Decoder, *, is_framed: bool) -> Flow[_Drop | None]:
        """Decide whether the end of the body is the end of the stream."""
        sorting = self._sorting
        given, end, said = sorting.sort(*_decode(decoder, None))
        if given:
            yield Give(given)
        if isinstance(end, Truncated) and sorting.says_outcomes:
            return _drop("broken", str(end))
        if (end := end or read_failure(sorting.last)) is not None:
            return (yield from self._obey(end, said))
        if is_unfinished(sorting.last):
            return _drop("broken", "the response ended in the middle of an answer")
        if not sorting.says_outcomes or self.media_type == Batch.media_type:
            return None
        if self.media_type == Text.media_type and is_framed:
            self.outcome = DONE
            return None
        return _drop("broken", "the response ended, but the stream has not")

    # Ends

    def _obey(self, end: End, said: Frame | None = None) -> Flow[_Drop | None]:
        """Act on the end of a response, after the application has got everything before it."""
        if isinstance(end, DecodeError):
            raise end
        if isinstance(end, StreamRefused):
            return (yield from self._judge_refusal(end))
        if isinstance(end, Reset):
            return (yield from self._restart(end.reason, None if said is None else said.id))
        if said is not None and said.id is not None:
            self._sorting.position.move(said.id)
        if isinstance(end, Farewell) and end.reason == "replaced":
            raise self._lost(_REPLACED)
        if isinstance(end, Farewell):
            return _Drop(Loss("farewell", f"the server said farewell ({end.reason})"), told=seconds_of(end.retry))
        assert isinstance(end, Outcome), end
        if end.state == "error":
            self.outcome = end
            raise StreamFailed(end.code, end.message, _members(said))
        if self.plan.gives_result and end.data is not None and said is not None and said.data is not end.data:
            yield Give([Frame(end.data, None, said.id)])
        self.outcome = end
        return None

    def _restart(self, reason: str, cursor: str | None) -> Flow[_Drop]:
        """Continue from a reset's cursor if the caller wants that. A `reset` event voids the earlier events."""
        if self.plan.on_reset == "raise":
            raise StreamReset(reason, cursor)
        told = 0.0 if self._sorting.gave_since_reset else None  # only the first reset in a row is no reason to wait
        self._sorting.restart(cursor)
        yield Give([Frame({"reason": reason}, "reset", cursor)])
        return _Drop(Loss("reset", f"the stream was reset ({reason})"), told=told)

    def _judge_close(self, code: int, reason: str) -> _Drop | None:
        """Decide what a socket's close code means if no outcome came before it."""
        if code == POLICY_VIOLATION:
            raise StreamRefused(code, "policy_violation", reason or None)
        sorting = self._sorting
        if code == REPLACED and sorting.says_outcomes:
            raise self._lost(_REPLACED)
        # A server that sends outcomes closes without one only if the client has the end already.
        if sorting.position.is_at_end if sorting.says_outcomes else code in (NORMAL, NO_STATUS):
            self._end_without_events()
            return None
        return _drop("broken", f"the socket was closed with {code} {reason}".rstrip())

    def _end_without_events(self) -> None:
        """End the stream, because the server has no more events. Raise StreamLost if none came since a reset."""
        if not self._sorting.gave_since_reset:
            raise self._lost(Loss("reset", "nothing is left of the stream after its reset"))

    # Continuing

    def _check_resumable(self, loss: Loss) -> None:
        """Raise StreamLost if continuing could leave a gap, repeat an event or start the stream a second time."""
        token = self.cursor
        if not (self._sorting.can_go_on or self.plan.allow_gaps):
            raise self._lost(loss, "its last event has no id to continue after")
        if token is not None and not can_be_sent(token):
            raise self._lost(loss, "the id of its last event cannot be sent back")
        if not self._may_repeat:
            raise self._lost(loss, "it has no address of its own to continue at")

    def _wait(self, drop: _Drop) -> Flow[None]:
        if drop.ours:
            return
        backoff = self._backoff
        try:
            delay = backoff.fail(drop.told, at_least=drop.at_least)
        except Spent as spent:
            raise StreamLost(drop.loss, self.cursor, backoff.failures, str(spent)) from None
        if self.plan.on_reconnect is not None:
            self.plan.on_reconnect(backoff.failures, delay, drop.loss)
        until = self._clock() + delay
        left = delay
        # A cancelled wait for an event must not shorten the delay.
        while isinstance((yield Sleep(self._deadline.within(left))), Failed):
            left = max(0.0, until - self._clock())

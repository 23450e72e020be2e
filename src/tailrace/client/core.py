"""Following a stream across connections: what to ask, what to give, when to wait and when to end. No I/O."""

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
from ..wire.text import Text
from ..wire.websocket import NO_STATUS, NORMAL, POLICY_VIOLATION
from .backoff import Backoff, Spent, read_retry_after, seconds_of
from .chunks import is_unfinished, read_failure
from .commands import Close, Ended, Failed, Flow, Give, Open, Opened, Read, Sleep
from .deadline import Deadline, Overdue
from .decoding import ACCEPT, decoder_for, media_type_of
from .errors import StreamFailed, StreamLost, StreamRefused, StreamReset
from .links import named_address, stop_link, with_parameter
from .plan import Plan
from .position import can_be_sent
from .refusals import NOT_DEALT_WITH, UNAVAILABLE, read_refusal
from .sorting import End, Sorting

_READ = Read()
_PART = 1 << 13
"""Bytes that are decoded at once. What more of them become grows old for the garbage collector, and that is slow."""


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + _PART] for start in range(0, len(data), _PART)]


def _decode(decoder: Decoder, part: bytes | None) -> tuple[list[Frame], DecodeError | None]:
    """The frames of a part, or of the end if it is None, and what is wrong behind them."""
    try:
        return decoder.close() if part is None else decoder.feed(part), None
    except DecodeError as error:
        return list(error.before), error


def _members(said: Frame | None) -> dict[str, Any] | None:
    return said.data if said is not None and isinstance(said.data, dict) else None


@dataclass(frozen=True, slots=True)
class _Drop:
    """This connection is of no more use, but the stream may go on.

    The next is to be made after exactly `told` seconds, or `at_least` so many. `ours` is nobody's failure.
    """

    reason: str
    told: float | None = None
    at_least: float = 0.0
    ours: bool = False


class Following:
    """One stream, from the first request to its end."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.outcome: Outcome | None = None
        self.address: str | None = None
        """Where the stream is resumed, once a response has said it."""
        self.stop_address: str | None = None
        self.media_type: str | None = None
        self.plan = plan
        self._clock = clock
        self._backoff = Backoff(plan.retry, clock=clock)
        self._sorting = Sorting(plan, self._backoff)
        self._deadline = Deadline(plan.timeouts.total, clock=clock)

    @property
    def cursor(self) -> str | None:
        """The id of the last event, or where the response begins."""
        return self._sorting.position.token

    def run(self) -> Flow[None]:
        """Until the stream has ended, or what ClientError says has happened."""
        try:
            while True:
                drop = yield from self._connect()
                yield Close()
                if drop is None:
                    return
                yield from self._wait(drop)
        except Overdue as overdue:
            raise StreamLost(str(overdue), self.cursor) from None

    def _connect(self) -> Flow[_Drop | None]:
        """One connection; None says that the stream is over."""
        reply = yield self._open()
        if isinstance(reply, Failed):
            if reply.final:
                raise StreamLost(reply.reason, self.cursor)
            if reply.sent and not self._may_repeat:
                raise StreamLost(f"{reply.reason}; it is unknown whether the request has arrived", self.cursor)
            return _Drop(reply.reason, ours=reply.ours)
        assert isinstance(reply, Opened), reply
        if reply.status == 204:
            self._end_without_events()
            return None
        if not 200 <= reply.status < 300:
            return (yield from self._be_refused(reply))
        self.media_type = media_type_of(reply.headers.get("content-type", ""))
        self._note(reply)
        has_cursors = self._sorting.position.gives_cursors
        decoder = decoder_for(self.media_type, self.plan.max_bytes, has_cursors=has_cursors)
        yield Give(())
        drop = yield from self._read_body(decoder, is_framed=reply.is_framed)
        if drop is not None:
            self._check_resumable(drop)
        return drop

    # The request

    def _open(self) -> Open:
        plan, address = self.plan, self.address
        headers = {"accept": ACCEPT, "accept-encoding": "identity", "cache-control": "no-store"}
        headers.update({name.lower(): value for name, value in plan.headers.items()})
        if address is not None:
            # What described the body of the first request says nothing of this one, which has none.
            headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
        elif plan.key is not None:
            headers["idempotency-key"] = plan.key
        url = address or plan.url
        if (token := self.cursor) is not None:
            headers["last-event-id"] = token
            if is_cursor(token) and (self._sorting.position.gives_cursors or token == plan.after):
                url = with_parameter(url, "after", token)
        deadline = self._deadline
        connect, idle = deadline.within(plan.timeouts.connect), deadline.within(plan.timeouts.idle)
        if address is not None:
            return Open("GET", url, headers, None, connect, idle, deadline.left)
        return Open(plan.method, url, headers, plan.content, connect, idle, deadline.left)

    @property
    def _may_repeat(self) -> bool:
        """Whether the next request starts nothing for a second time."""
        if self.plan.is_safe or self.address is not None:
            return True
        position = self._sorting.position
        return position.gives_cursors and position.token is not None and is_cursor(position.token)

    # The head of the response

    def _note(self, head: Opened) -> None:
        """What it says of its stream."""
        headers = head.headers
        cursor = headers.get("tailrace-cursor")
        is_document = self.media_type == Batch.media_type
        self._sorting.begin(cursor if cursor is not None and is_cursor(cursor) else None, is_document=is_document)
        if self.plan.is_socket:
            return  # its address is one of HTTP, and it is stopped by a message
        # What is sent there has the caller's credentials: they are for nobody but who was asked.
        location, link = headers.get("content-location"), stop_link(headers.get("link", ""))
        self.address = named_address(location, by=head.url, asked=head.asked) or self.address
        self.stop_address = named_address(link, by=head.url, asked=head.asked) or self.stop_address

    def _be_refused(self, head: Opened) -> Flow[_Drop | None]:
        error = yield from read_refusal(head, self._deadline)
        return (yield from self._judge_refusal(error, read_retry_after(head.headers.get("retry-after"))))

    def _judge_refusal(self, error: StreamRefused, retry_after: float | None = None) -> Flow[_Drop | None]:
        if error.status == 410 and error.code == "reset":
            cursor = error.members.get("cursor")
            is_given = isinstance(cursor, str) and is_cursor(cursor)
            return (yield from self._restart(str(error.members.get("reason")), cursor if is_given else None))
        if error.status not in UNAVAILABLE:
            raise error
        if self._may_repeat or (error.status in NOT_DEALT_WITH and retry_after is not None):
            return _Drop(str(error), at_least=retry_after or 0.0)
        if error.status in NOT_DEALT_WITH:
            raise error
        raise StreamLost(f"{error}; it is unknown whether the request has arrived", self.cursor) from error

    # The body

    def _read_body(self, decoder: Decoder, *, is_framed: bool) -> Flow[_Drop | None]:
        sort, deadline = self._sorting.sort, self._deadline
        # Where a piece is an event, it stays one.
        is_divisible = not (self.media_type == Text.media_type or self.plan.is_socket)
        while True:
            reply = yield _READ if deadline.is_never else Read(deadline.within(self.plan.timeouts.idle))
            if not isinstance(reply, bytes):
                break
            for part in _parts(reply) if is_divisible and len(reply) > _PART else (reply,):
                given, end, said = sort(*_decode(decoder, part))
                if given:
                    yield Give(given)
                if end is not None:
                    return (yield from self._obey(end, said))
        if isinstance(reply, Failed):
            failure = read_failure(self._sorting.last)
            return _Drop(reply.reason, ours=reply.ours) if failure is None else (yield from self._obey(failure))
        assert isinstance(reply, Ended), reply
        if reply.code is not None:
            return self._judge_close(reply.code, reply.reason)
        return (yield from self._end_body(decoder, is_framed=is_framed))

    def _end_body(self, decoder: Decoder, *, is_framed: bool) -> Flow[_Drop | None]:
        """What it means that there is no more of it."""
        sorting = self._sorting
        given, end, said = sorting.sort(*_decode(decoder, None))
        if given:
            yield Give(given)
        if isinstance(end, Truncated) and sorting.says_outcomes:
            return _Drop(str(end))
        if (end := end or read_failure(sorting.last)) is not None:
            return (yield from self._obey(end, said))
        if is_unfinished(sorting.last):
            return _Drop("the response ended in the middle of an answer")
        if not sorting.says_outcomes or self.media_type == Batch.media_type:
            return None
        if self.media_type == Text.media_type and is_framed:
            self.outcome = DONE
            return None
        return _Drop("the response ended, but the stream has not")

    # What the server has said

    def _obey(self, end: End, said: Frame | None = None) -> Flow[_Drop | None]:
        """What follows from what a frame has said, now that the application has all that came before."""
        if isinstance(end, DecodeError):
            raise end
        if isinstance(end, StreamRefused):
            return (yield from self._judge_refusal(end))
        if isinstance(end, Reset):
            return (yield from self._restart(end.reason, None if said is None else said.id))
        if said is not None and said.id is not None:
            self._sorting.position.move(said.id)
        if isinstance(end, Farewell):
            return _Drop(f"the server said farewell ({end.reason})", told=seconds_of(end.retry))
        assert isinstance(end, Outcome), end
        self.outcome = end
        if end.state == "error":
            raise StreamFailed(end.code, end.message, _members(said))
        return None

    def _restart(self, reason: str, cursor: str | None) -> Flow[_Drop]:
        """Go on from a reset's cursor, if that is wanted. The application is told, to forget what it has."""
        if self.plan.on_reset == "raise":
            raise StreamReset(reason, cursor)
        self._sorting.restart(cursor)
        yield Give([Frame({"reason": reason}, "reset", cursor)])
        return _Drop(f"the stream was reset ({reason})", told=0.0)

    def _judge_close(self, code: int, reason: str) -> _Drop | None:
        """What the close code of a socket means where no outcome came before it."""
        if code == POLICY_VIOLATION:
            raise StreamRefused(code, "policy_violation", reason or None)
        sorting = self._sorting
        # Who says how its streams end closes so, without a word, only before a client that has had the end.
        if sorting.position.is_at_end if sorting.says_outcomes else code in (NORMAL, NO_STATUS):
            self._end_without_events()
            return None
        return _Drop(f"the socket was closed with {code} {reason}".rstrip())

    def _end_without_events(self) -> None:
        """The server has nothing more: the client has the end, or after a reset there is nothing left to have."""
        if not self._sorting.gave_since_reset:
            raise StreamLost("nothing is left of the stream after its reset", self.cursor)

    # Going on

    def _check_resumable(self, drop: _Drop) -> None:
        """StreamLost if going on could leave a gap, show an event twice or start a stream for a second time."""
        reason, token = drop.reason, self.cursor
        if not (self._sorting.can_go_on or self.plan.allow_gaps):
            raise StreamLost(f"{reason}; its last event has no id after which it could go on", token)
        if token is not None and not can_be_sent(token):
            raise StreamLost(f"{reason}; the id of its last event cannot be sent back", token)
        if not self._may_repeat:
            raise StreamLost(f"{reason}; it has no address of its own at which it could go on", token)

    def _wait(self, drop: _Drop) -> Flow[None]:
        if drop.ours:
            return
        backoff = self._backoff
        try:
            delay = backoff.fail(drop.told, at_least=drop.at_least)
        except Spent as spent:
            raise StreamLost(f"{drop.reason}{spent}", self.cursor, backoff.failures) from None
        if self.plan.on_reconnect is not None:
            self.plan.on_reconnect(backoff.failures, delay, drop.reason)
        until = self._clock() + delay
        left = delay
        # Whoever gives up waiting for an event does not make the server wait less.
        while isinstance((yield Sleep(self._deadline.within(left))), Failed):
            left = max(0.0, until - self._clock())

"""Following a stream across connections: what to ask, what to give, when to wait and when to end. No I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin

from ..errors import Truncated
from ..events import DONE, RESERVED, Dropped, Farewell, Notice, Outcome, Reset
from ..wire.base import Decoder, Frame, read_notice
from ..wire.batch import Batch
from ..wire.sse import ONLY_RETRY
from ..wire.text import Text
from ..wire.websocket import NORMAL, POLICY_VIOLATION
from .backoff import Backoff, Spent, read_retry_after
from .commands import Close, Ended, Failed, Flow, Give, Open, Opened, Read, Sleep
from .decoding import ACCEPT, decoder_for, media_type_of
from .errors import StreamFailed, StreamLost, StreamRefused, StreamReset, told_refusal
from .links import same_origin, stop_link, with_parameter
from .plan import Plan
from .position import Elsewhere, Position, read_cursor
from .refusals import NOT_DEALT_WITH, UNAVAILABLE, read_refusal

_FIELD_VALUE = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?")

_READ = Read()
_PART = 1 << 13
"""Bytes that are decoded at once. What more of them become grows old for the garbage collector, and that is slow."""


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + _PART] for start in range(0, len(data), _PART)]


def _can_be_sent(token: str) -> bool:
    """Whether an id, which may be another server's, can be the value of a header (RFC 9110, section 5.5)."""
    return _FIELD_VALUE.fullmatch(token) is not None


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
        self._position = Position(plan.after)
        self._backoff = Backoff(plan.retry, clock=clock)
        total = plan.timeouts.total
        self._deadline = None if total is None else clock() + total
        self._says_outcomes = False
        self._names_cursors = plan.is_socket or plan.after is not None
        self._gave_without_id = False
        self._gave_since_open = False
        self._gave_since_reset = True

    @property
    def cursor(self) -> str | None:
        """The id of the last event, or where the response begins."""
        return self._position.token

    def run(self) -> Flow[None]:
        """Until the stream has ended, or what ClientError says has happened."""
        while True:
            drop = yield from self._connect()
            yield Close()
            if drop is None:
                return
            yield from self._wait(drop)

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
        self._note(reply)
        self.media_type = media_type = media_type_of(reply.headers.get("content-type", ""))
        decoder = decoder_for(media_type, self.plan.max_bytes)
        self._says_outcomes |= media_type == Batch.media_type
        yield Give(())
        drop = yield from self._read_body(decoder, whole_is_done=media_type == Text.media_type)
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
            if _can_be_sent(token):
                headers["last-event-id"] = token
            if self._position.is_cursor:
                url = with_parameter(url, "after", token)
        connect, idle = self._within(plan.timeouts.connect), self._within(plan.timeouts.idle)
        if address is not None:
            return Open("GET", url, headers, None, connect, idle)
        return Open(plan.method, url, headers, plan.content, connect, idle)

    @property
    def _may_repeat(self) -> bool:
        """Whether the next request starts nothing for a second time."""
        return self.plan.is_safe or self.address is not None or (self._position.is_cursor and self._names_cursors)

    def _within(self, seconds: float) -> float:
        """That many seconds, or what is left of the total; StreamLost if nothing is."""
        if self._deadline is None:
            return seconds
        if (left := self._deadline - self._clock()) <= 0:
            raise StreamLost(f"the total timeout of {self.plan.timeouts.total:g} s is over", self.cursor)
        return min(seconds, left)

    # The head of the response

    def _note(self, head: Opened) -> None:
        """What it says of its stream."""
        self._gave_since_open = False
        headers = head.headers
        if (token := headers.get("stream-cursor")) is not None:
            self._says_outcomes = self._names_cursors = True
            if self.cursor is None:
                self._position.move(token)
        if self.plan.is_socket:
            return  # its address is one of HTTP, and it is stopped by a message
        # What is sent there has the caller's credentials: they are for nobody but who was asked.
        if (location := headers.get("content-location")) is not None:
            address = urljoin(head.url, location)
            self.address = address if same_origin(address, head.asked) else self.address
        if (link := stop_link(headers.get("link", ""))) is not None:
            stop = urljoin(head.url, link)
            self.stop_address = stop if same_origin(stop, head.asked) else self.stop_address

    def _be_refused(self, head: Opened) -> Flow[_Drop | None]:
        error = yield from read_refusal(head)
        members = error.members
        if head.status == 410 and error.code == "reset":
            return (yield from self._restart(str(members.get("reason")), members.get("cursor")))
        retry_after = read_retry_after(head.headers.get("retry-after"))
        if head.status not in UNAVAILABLE:
            raise error
        if self._may_repeat or (head.status in NOT_DEALT_WITH and retry_after is not None):
            return _Drop(str(error), at_least=retry_after or 0.0)
        if head.status in NOT_DEALT_WITH:
            raise error
        raise StreamLost(f"{error}; it is unknown whether the request has arrived", self.cursor) from error

    # The body

    def _read_body(self, decoder: Decoder, *, whole_is_done: bool) -> Flow[_Drop | None]:
        # Where a piece is an event, it stays one.
        is_divisible = not (whole_is_done or self.plan.is_socket)
        while True:
            reply = yield _READ if self._deadline is None else Read(self._within(self.plan.timeouts.idle))
            if isinstance(reply, Failed):
                return _Drop(reply.reason, ours=reply.ours)
            if isinstance(reply, Ended):
                break
            for part in _parts(reply) if is_divisible and len(reply) > _PART else (reply,):
                frames, notice = self._sort(decoder.feed(part))
                if frames:
                    yield Give(frames)
                if notice is not None:
                    return (yield from self._obey(notice))
        if reply.code is not None:
            return self._judge_close(reply.code, reply.reason)
        try:
            frames, notice = self._sort(decoder.close())
        except Truncated as error:
            if self._says_outcomes:
                return _Drop(str(error))
            raise
        if frames:
            yield Give(frames)
        if notice is not None:
            return (yield from self._obey(notice))
        if whole_is_done:
            self.outcome = DONE
        elif self._says_outcomes:
            return _Drop("the response ended, but the stream has not")
        return None

    def _sort(self, frames: list[Frame]) -> tuple[list[Frame], Notice | None]:
        """What the application gets of them, up to a notice that ends the response."""
        given: list[Frame] = []
        notice: Notice | None = None
        advance = self._position.advance
        try:
            for frame in frames:
                if frame.retry is not None and self._heed_retry(frame):
                    continue
                if (frame.event in RESERVED or frame.data is DONE) and (notice := self._read_notice(frame)) is not None:
                    if not isinstance(notice, Dropped):
                        break
                    notice = None
                elif frame.id is None:
                    self._gave_without_id = True
                elif not advance(frame.id):
                    continue
                given.append(frame)
        except Elsewhere:
            notice = Reset("epoch_changed")
        if given:
            self._backoff.succeed()
            self._gave_since_open = self._gave_since_reset = True
        return given, notice

    def _heed_retry(self, frame: Frame) -> bool:
        """Whether that was all that the frame has to say. What a farewell says is for once only."""
        if frame.event != "farewell" and frame.retry is not None:
            self._backoff.floor = frame.retry / 1000
        return frame.data is ONLY_RETRY

    def _read_notice(self, frame: Frame) -> Notice | None:
        """The notice in a frame, unless it is of a server that means something else by the name."""
        if frame.data is DONE:
            return Outcome("done")
        if self.plan.is_socket and frame.id is None and isinstance(frame.data, dict) and "status" in frame.data:
            raise told_refusal(int(frame.data["status"]), frame.data)
        if not (self._says_outcomes or (frame.id is not None and read_cursor(frame.id) is not None)):
            return None
        notice = read_notice(frame)
        if frame.id is not None:
            self._position.move(frame.id)
        return notice

    # What the server has said

    def _obey(self, notice: Notice) -> Flow[_Drop | None]:
        if isinstance(notice, Reset):
            return (yield from self._restart(notice.reason, self.cursor))
        if isinstance(notice, Farewell):
            return _Drop(f"the server said farewell ({notice.reason})", told=notice.retry / 1000)
        assert isinstance(notice, Outcome), notice
        self.outcome = notice
        if notice.state == "error":
            raise StreamFailed(notice.code, notice.message)
        return None

    def _restart(self, reason: str, cursor: str | None) -> Flow[_Drop]:
        """Go on from a reset's cursor, if that is wanted. The application is told, to forget what it has."""
        if self.plan.on_reset == "raise":
            raise StreamReset(reason, cursor)
        self._position = Position(cursor)
        self._gave_without_id = self._gave_since_reset = False
        yield Give([Frame({"reason": reason}, "reset", cursor)])
        return _Drop(f"the stream was reset ({reason})", told=0.0)

    def _judge_close(self, code: int, reason: str) -> _Drop | None:
        """What the close code of a socket means where no outcome came before it."""
        if code == POLICY_VIOLATION:
            raise StreamRefused(code, "policy_violation", reason or None)
        if code == NORMAL and not (self._says_outcomes and self._gave_since_open):
            self._end_without_events()
            return None
        return _Drop(f"the socket was closed with {code} {reason}".rstrip())

    def _end_without_events(self) -> None:
        """The server has nothing more: the client has the end, or after a reset there is nothing left to have."""
        if not self._gave_since_reset:
            raise StreamLost("nothing is left of the stream after its reset", self.cursor)

    # Going on

    def _check_resumable(self, drop: _Drop) -> None:
        """StreamLost if going on could leave a gap, show an event twice or start a stream for a second time."""
        if self._gave_without_id and not self.plan.allow_gaps:
            raise StreamLost(f"{drop.reason}; its events have no ids after which it could go on")
        if (token := self.cursor) is not None and not _can_be_sent(token):
            raise StreamLost(f"{drop.reason}; the id of its last event cannot be sent back", token)
        if not self._may_repeat:
            raise StreamLost(f"{drop.reason}; it has no address of its own at which it could go on", self.cursor)

    def _wait(self, drop: _Drop) -> Flow[None]:
        if drop.ours:
            return
        backoff = self._backoff
        try:
            delay = backoff.fail(drop.told, at_least=drop.at_least)
        except Spent:
            raise StreamLost(drop.reason, self.cursor, backoff.failures) from None
        if self.plan.on_reconnect is not None:
            self.plan.on_reconnect(backoff.failures, delay, drop.reason)
        yield Sleep(self._within(delay))

"""The packets of a session's client, without I/O: those that wait to be sent, and those that have arrived."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Generic, NamedTuple, cast

from pydantic_core import ValidationError, to_json
from typing_extensions import TypeVar

from ..events import Outcome
from ..packet import PacketType, RequestFailed, SocketPacket
from ..wire.base import Frame
from .errors import ClientError, SessionEnded, StreamRefused, TooManyUnread, unexpected
from .requests import ask
from .settings import Retry
from .transport import Flow, Open

P = TypeVar("P", bound=SocketPacket[Any], default=SocketPacket[Any])

# Packets to send

MAX_PACKETS = 256
MAX_BYTES = 1 << 16
"""The most packets in one request, and the most bytes of several. A server remembers the last 1,024 packet ids."""

_ONE_PACKET, _PACKETS = "application/json", "application/x-ndjson"

_ABOUT_ONE = frozenset({400, 413, 422})
"""Statuses that refuse a whole request, although only one of its packets may be wrong, or they may only be too much
together."""


class Unsent:
    """A packet that the server has neither accepted nor refused yet."""

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.is_settled = False
        self._error: ClientError | None = None

    def settle(self, error: ClientError | None) -> None:
        self.is_settled = True
        self._error = error

    def check(self) -> None:
        """Raise the error that settled the packet, if the server has not accepted it."""
        if self._error is not None:
            raise self._error


class Outgoing:
    """The packets that wait for the server to accept them, in order.

    `request` makes a request of a body and its media type. Any waiting sender may `deliver` for all: several packets
    share a request, and the same packets are sent again after a loss. The server recognises them by their ids.
    """

    def __init__(self, request: Callable[[bytes, str], Open], retry: Retry) -> None:
        self._request = request
        self._retry = retry
        self._unsent: deque[Unsent] = deque()

    @contextmanager
    def adding(self, packet: SocketPacket[Any]) -> Iterator[Unsent]:
        """Keep a packet in the queue, until it is settled or its sender no longer waits."""
        unsent = Unsent(packet.encode())
        self._unsent.append(unsent)
        try:
            yield unsent
        finally:
            if not unsent.is_settled:
                self._unsent.remove(unsent)

    def deliver(self, total: float | None) -> Flow[None]:
        """Send the first packets in one request, within `total` seconds, and settle them."""
        batch = self._gather()
        error = yield from self._post(batch, total)
        if len(batch) > 1 and _is_about_one(error):
            yield from self._deliver_each(batch, total)
        else:
            self._settle(batch, error)

    def _deliver_each(self, batch: Sequence[Unsent], total: float | None) -> Flow[None]:
        """Send packets one by one, until an error would be the same for all that follow."""
        for number, unsent in enumerate(batch):
            error = yield from self._post([unsent], total)
            if error is not None and not _is_about_one(error):
                return self._settle(batch[number:], error)
            self._settle([unsent], error)

    def _gather(self) -> list[Unsent]:
        """Return as many packets as fit into one request, and at least the first."""
        gathered: list[Unsent] = []
        size = 0
        for unsent in self._unsent:
            size += len(unsent.line) + 1
            if gathered and (len(gathered) == MAX_PACKETS or size > MAX_BYTES):
                break
            gathered.append(unsent)
        return gathered

    def _post(self, batch: Sequence[Unsent], total: float | None) -> Flow[ClientError | None]:
        """Send packets in one request. Return the error if the server has not accepted them."""
        body = b"\n".join([unsent.line for unsent in batch])
        request = self._request(body, _ONE_PACKET if len(batch) == 1 else _PACKETS)
        try:
            yield from ask(request, self._retry, repeatable=True, total=total)
        except ClientError as error:
            return _as_end(error)
        return None

    def _settle(self, batch: Sequence[Unsent], error: ClientError | None) -> None:
        for unsent in batch:
            unsent.settle(error)
        while self._unsent and self._unsent[0].is_settled:
            self._unsent.popleft()


def _is_about_one(error: ClientError | None) -> bool:
    return isinstance(error, StreamRefused) and error.status in _ABOUT_ONE


def _as_end(error: ClientError) -> ClientError:
    """Return the refusal of a session that has ended as its end, and any other error as it is."""
    # The status is enough, because the body may have been lost.
    if not (isinstance(error, StreamRefused) and error.status == 410):
        return error
    return SessionEnded(*(_text(error.members, name) for name in ("state", "outcome_code", "message")))


def _text(members: Any, name: str) -> str | None:
    value = members.get(name) if isinstance(members, dict) else None
    return value if isinstance(value, str) else None


# Packets that have arrived

MAX_UNREAD = 1024
"""The most packets to hold for the iteration while a request waits for its answer."""
UNREAD_FRAMES = 4
"""Their most bytes, as a multiple of the most bytes of one packet."""


class _Arrived(NamedTuple):
    """A packet that has arrived. `number` counts the packets, and `before` is the cursor of the one before it."""

    number: int
    before: str | None
    frame: Frame
    size: int


class Incoming(Generic[P]):
    """The packets that have arrived, until the iteration or a request takes them.

    Packets are read with `model` only when they are taken, so that a wrong one is an error of its receiver.
    """

    def __init__(self, model: type[P], cursor: str | None, max_bytes: int) -> None:
        self.is_over = False
        self.is_ended_here = False
        """True if this client has asked the server to end the session."""
        self._model = model
        self._cursor = cursor
        self._max_size = UNREAD_FRAMES * max_bytes
        self._count = 0
        self._size = 0
        self._unread: deque[_Arrived] = deque()
        self._expected: set[str] = set()
        self._answers: dict[str, _Arrived] = {}
        self._result: Frame | None = None
        self._end: Exception | None = None
        self._unanswered: Exception | None = None

    @property
    def result(self) -> P | None:
        return None if self._result is None else self._read(self._result)

    @property
    def before_unread(self) -> str | None:
        """The cursor before the first packet that nobody has taken, or None if all are taken."""
        return self._unread[0].before if self._unread else None

    # Arriving

    def take(self, frames: Sequence[Frame]) -> None:
        """Sort packets: the first reply to a request is its answer, and all others are for the iteration."""
        for frame in frames:
            self._count += 1
            # Without a request, at most one piece of the response is unread, so its size does not matter.
            size = len(to_json(frame.data)) if self._expected else 0
            self._sort(_Arrived(self._count, self._cursor, frame, size))
            self._cursor = frame.id or self._cursor

    def _sort(self, arrived: _Arrived) -> None:
        kind, reply_to = _text(arrived.frame.data, "packet_type"), _text(arrived.frame.data, "reply_to")
        is_answer = reply_to in self._expected and reply_to not in self._answers
        if is_answer:
            self._answers[str(reply_to)] = arrived
        if kind == PacketType.RESULT:
            self._result = arrived.frame
        if not is_answer or kind == PacketType.RESULT:  # the iteration ends with the result, whatever it answers
            self._keep(arrived)

    def _keep(self, arrived: _Arrived) -> None:
        insort(self._unread, arrived, key=_NUMBER)
        self._size += arrived.size

    def end(self, outcome: Outcome | None) -> None:
        """Note the end of the stream. Without an outcome, the client had all of it before."""
        ended = SessionEnded() if outcome is None else SessionEnded(outcome.state, outcome.code, outcome.message)
        is_expected = outcome is None or self._result is not None or self.is_ended_here
        self._close(None if is_expected else ended, ended)

    def fail(self, error: Exception) -> None:
        """Note that the stream cannot be read further."""
        self._close(error, error)

    def _close(self, end: Exception | None, unanswered: Exception) -> None:
        if not self.is_over:
            self.is_over, self._end, self._unanswered = True, end, unanswered

    # Taking

    def pop(self) -> P | None:
        """Return the next packet for the iteration, or None if there is none. Raise the end unless it was expected."""
        if self._unread:
            arrived = self._unread.popleft()
            self._size -= arrived.size
            return self._read(arrived.frame)
        if self._end is not None:
            raise self._end
        return None

    @contextmanager
    def expecting(self, packet_id: str) -> Iterator[None]:
        """Keep the first reply to a packet for `answer_to`. If it is not taken there, it is for the iteration."""
        if packet_id in self._expected:
            raise ValueError(f"expected an id that no other request has now, but got {packet_id!r}")
        self._expected.add(packet_id)
        try:
            yield
        finally:
            self._expected.discard(packet_id)
            arrived = self._answers.pop(packet_id, None)
            if arrived is not None and arrived.frame is not self._result:
                self._keep(arrived)

    def answer_to(self, packet_id: str) -> P | None:
        """Return the answer to a packet, or None if it has not come yet.

        Raise RequestFailed if the answer is an error, the end if the session has ended, and TooManyUnread if too many
        other packets have arrived.
        """
        if (arrived := self._answers.pop(packet_id, None)) is not None:
            self._expected.discard(packet_id)
            answer = self._read(arrived.frame)
            if answer.packet_type == PacketType.ERROR:
                raise RequestFailed(answer)
            return answer
        if self._unanswered is not None:
            raise self._unanswered
        self.check_room(sent=True)
        return None

    def check_room(self, *, sent: bool) -> None:
        """Raise TooManyUnread if no more packets may wait for the iteration. `sent`: whether the request was sent."""
        count, size = len(self._unread), self._size
        if count >= MAX_UNREAD or size > self._max_size:
            bound = f"{MAX_UNREAD} packets" if count >= MAX_UNREAD else f"{self._max_size} bytes"
            raise TooManyUnread(count, size, bound, sent=sent)

    def _read(self, frame: Frame) -> P:
        return read_packet(self._model, frame)


_NUMBER = attrgetter("number")


def read_packet(model: type[P], frame: Frame) -> P:
    """Read the packet in a frame. Raise DecodeError if there is none, or one that the model does not allow.

    Errors and notices have the server's own payloads, so they are plain packets.
    """
    members = {"packet_type": "DROPPED", "payload": frame.data} if frame.event == "dropped" else frame.data
    is_plain = frame.event == "dropped" or _text(frame.data, "packet_type") == PacketType.ERROR
    chosen: Any = SocketPacket if is_plain else model
    try:
        return cast("P", chosen.read(members))
    except ValidationError as error:
        raise unexpected(chosen, error) from None

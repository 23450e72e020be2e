"""`PacketClient`: packet sessions over plain HTTP, with or without asyncio.

The server's packets arrive as one stream, which the client follows as `tail` does. Requests to the session's address
carry packets the other way. `AsyncPackets` and `Packets` drive the same cores: `Following`, `Incoming` and `Outgoing`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ..packet import SocketPacket
from ..wire.base import MAX_FRAME_BYTES, Frame
from .errors import NotASession, RequestTimedOut, Unreachable
from .http import HTTPClient
from .mail import Incoming, Outgoing, P
from .requests import ask, check_url, with_parameter
from .settings import NEVER, Deadline, OnDegraded, OnReconnect, Overdue, Plan, Retry, Timeouts
from .stream import AsyncEvents, Events, Reading, Tail, new_key
from .transport import Flow, Open


class PacketClient(Generic[P]):
    """A client of the packet sessions at `url`, the path of a `packets_router`.

    Enter a session with `async with client.open(packet) as session`, or without `async`.

    - `headers`: for all requests to the origin of `url`.
    - `retry`: the bounds for failures in a row, for the stream between two packets and for each packet to send.
    - `timeouts`: by default, a session may be quiet for any time.
    - `on_reconnect`: a function to call before the stream connects again.
    - `on_degraded`: a function to call when the server cannot reach its store, and when it can again.
    - `packet`: the model for the server's packets, such as `SocketPacket[Order]`. Errors are plain packets.
    - `max_bytes`: the bound for one packet from the server.
    - `client`: your own httpx client, which stays open.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        on_reconnect: OnReconnect | None = None,
        on_degraded: OnDegraded | None = None,
        packet: type[P] | None = None,
        max_bytes: int = MAX_FRAME_BYTES,
        client: HTTPClient | None = None,
    ) -> None:
        check_url(url, is_whole=client is None, sockets=False)
        self._url = url
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._options: dict[str, Any] = {
            "retry": retry or Retry(),
            "timeouts": timeouts or Timeouts(event=None),
            "on_reconnect": on_reconnect,
            "on_degraded": on_degraded,
            "max_bytes": max_bytes,
            "gives_result": True,
            "takeover": True,
        }
        self._model: Any = packet or SocketPacket
        self._client = client

    def open(self, packet: SocketPacket[Any]) -> PacketStream[P]:
        """Open a session with its first packet. The session begins once, however often the request is sent."""
        return self._stream(self._url, method="POST", content=_checked(packet).encode(), key=new_key())

    def resume(self, session_id: str, after: str | None = None, *, takeover: bool = False) -> PacketStream[P]:
        """Continue a session from its beginning, or after a `cursor`.

        If another client reads the session, raise AlreadyRead. With `takeover`, that client must stop.
        """
        if not (isinstance(session_id, str) and session_id):
            raise ValueError(f"expected the id of a session, but got {session_id!r:.80}")
        parts = urlsplit(self._url)
        address = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(session_id, safe='')}"))
        url = with_parameter(address, "takeover", "true") if takeover else address
        return self._stream(url, address, after=after)

    def _stream(self, url: str, address: str | None = None, **options: Any) -> PacketStream[P]:
        headers = {"accept": "text/event-stream", "content-type": "application/json", **self._headers}
        plan = Plan(url=url, headers=headers, **self._options, **options)
        return PacketStream(plan, self._model, self._client, address)


class PacketStream(Generic[P]):
    """A session to enter. `async with` gives AsyncPackets, and `with` gives Packets.

    Leaving it does not end the session, which ends itself if nobody reads it for its grace period.
    """

    def __init__(self, plan: Plan, model: type[P], client: HTTPClient | None, address: str | None) -> None:
        self._session = plan, model, address
        self._tail: Tail[Frame] = Tail(plan, None, client)
        self._entered: AsyncPackets[P] | None = None

    async def __aenter__(self) -> AsyncPackets[P]:
        events = await self._tail.__aenter__()
        try:
            self._entered = packets = AsyncPackets(events, *self._session)
        except NotASession:
            await self._tail.__aexit__(None, None, None)
            raise
        return packets

    async def __aexit__(self, *_: object) -> None:
        packets, self._entered = self._entered, None
        assert packets is not None
        try:
            await packets.close()
        finally:
            await self._tail.__aexit__(None, None, None)

    def __enter__(self) -> Packets[P]:
        events = self._tail.__enter__()
        try:
            return Packets(events, *self._session)
        except NotASession:
            self._tail.__exit__(None, None, None)
            raise

    def __exit__(self, *_: object) -> None:
        self._tail.__exit__(None, None, None)


class _Session(Generic[P]):
    """The common part of both drivers of a session."""

    def __init__(self, events: Reading[Frame], plan: Plan, model: type[P], address: str | None) -> None:
        self._reading = events
        self._plan = plan
        self._given = address  # because the answer to a resume after the end names no address
        self._incoming = Incoming(model, events.cursor, plan.max_bytes)
        self._outgoing = Outgoing(lambda body, media_type: self._ask("POST", body, media_type), plan.retry)
        self.id = unquote(urlsplit(self.address).path.rpartition("/")[2])
        """The id of the session, to resume it."""

    @property
    def address(self) -> str:
        """The address of the session."""
        if (address := self._reading.address or self._given) is None:
            raise NotASession
        return address

    @property
    def cursor(self) -> str | None:
        """The cursor of the last packet that you received. Pass it as `after` to resume the session later."""
        return self._incoming.before_unread or self._reading.cursor

    @property
    def result(self) -> P | None:
        """The RESULT packet, once it has arrived."""
        return self._incoming.result

    def _take(self, frames: Sequence[Frame]) -> None:
        """Take what has arrived. No packets mean the end."""
        if frames:
            self._incoming.take(frames)
        else:
            self._incoming.end(self._reading.outcome)

    def _ask(self, method: str, body: bytes | None = None, media_type: str | None = None) -> Open:
        headers = {**self._plan.headers, "accept": "application/json"}
        del headers["content-type"]
        if media_type is not None:
            headers["content-type"] = media_type
        timeouts = self._plan.timeouts
        return Open(method, self.address, headers, body, timeouts.connect, timeouts.idle, timeouts.head)

    def _ending(self) -> Flow[None]:
        self._incoming.is_ended_here = True
        yield from ask(self._ask("DELETE"), self._plan.retry, repeatable=True, total=self._plan.timeouts.total)


def _checked(packet: Any) -> SocketPacket[Any]:
    if not isinstance(packet, SocketPacket):
        raise TypeError(f"expected a SocketPacket, but got {type(packet).__name__}")
    return packet


def _with_id(packet: SocketPacket[Any]) -> tuple[SocketPacket[Any], str]:
    """Return a packet with its id, which is a new one if it has none, so that it may be sent again."""
    packet_id = _checked(packet).id or new_key()
    return packet if packet.id else packet.model_copy(update={"id": packet_id}), packet_id


class AsyncPackets(_Session[P], Generic[P]):
    """A packet session, with asyncio. Any number of tasks may send, request and iterate at the same time."""

    def __init__(self, events: AsyncEvents[Frame], plan: Plan, model: type[P], address: str | None) -> None:
        super().__init__(events, plan, model, address)
        self._events = events
        self._sending = asyncio.Lock()
        self._piece: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncPackets[P]:
        return self

    async def __anext__(self) -> P:
        while (packet := self._incoming.pop()) is None:
            if self._incoming.is_over:
                raise StopAsyncIteration
            await self._read_on()
        return packet

    async def send(self, packet: SocketPacket[Any]) -> None:
        """Send a packet, and return when the server has accepted it.

        It is delivered once, even if connections are lost. Packets arrive in the order of the calls. Raise SessionEnded
        if the session has ended, StreamRefused if the server refuses the packet, and Unreachable if it cannot be
        reached or is too busy.
        """
        await self._send(_with_id(packet)[0])

    async def _send(self, packet: SocketPacket[Any]) -> None:
        with self._outgoing.adding(packet) as unsent:
            # The lock passes from task to task in the order of their packets. The task that has it sends for all who
            # wait. If it is cancelled, the next one sends their packets again.
            async with self._sending:
                while not unsent.is_settled:
                    await self._events.converse(self._outgoing.deliver(self._plan.timeouts.total))
        unsent.check()

    async def request(self, packet: SocketPacket[Any], *, timeout: float | None = 30.0) -> P:  # noqa: ASYNC109
        """Send a packet and return its answer: the first packet whose `reply_to` is its id.

        Raise RequestFailed if that is an ERROR packet, and RequestTimedOut if none comes in time. The iteration gets
        all other packets.
        """
        packet, packet_id = _with_id(packet)
        self._incoming.check_room(sent=False)
        with self._incoming.expecting(packet_id):
            try:
                async with asyncio.timeout(timeout) as limit:
                    await self._send(packet)
                    while (answer := self._incoming.answer_to(packet_id)) is None:
                        await self._read_on()
            except TimeoutError:
                if timeout is None or not limit.expired():
                    raise
                raise RequestTimedOut(packet_id, timeout) from None
        return answer

    async def end(self) -> None:
        """End the session. The iteration then stops."""
        await self._events.converse(self._ending())

    async def close(self) -> None:
        """Leave the session, which continues without you. The end of the block does this."""
        self._incoming.fail(RuntimeError("expected to read inside of the block, but the session was left"))
        await self._events.close()
        if self._piece is not None:
            self._piece.cancel()
            await asyncio.wait([self._piece])

    async def _read_on(self) -> None:
        """Wait until more has arrived.

        One task reads for all who wait. It goes on if a wait is cancelled: otherwise each timeout of a request would
        cost the connection. The task ends when the piece has arrived, or when the session is left.
        """
        if self._piece is None:
            self._piece = asyncio.create_task(self._read())
        await asyncio.wait([self._piece])

    async def _read(self) -> None:
        try:
            self._take(await self._events.read())
        except Exception as error:  # the task that waits raises it
            self._incoming.fail(error)
        finally:
            self._piece = None


class Packets(_Session[P], Generic[P]):
    """A packet session, without asyncio. Any thread may send, but only one at a time may iterate or request."""

    def __init__(self, events: Events[Frame], plan: Plan, model: type[P], address: str | None) -> None:
        super().__init__(events, plan, model, address)
        self._events = events
        self._sending = threading.Lock()

    def __iter__(self) -> Packets[P]:
        return self

    def __next__(self) -> P:
        while (packet := self._incoming.pop()) is None:
            if self._incoming.is_over:
                raise StopIteration
            self._take(self._events.read())
        return packet

    def send(self, packet: SocketPacket[Any]) -> None:
        """Send a packet, and return when the server has accepted it.

        It is delivered once, even if connections are lost. Raise SessionEnded if the session has ended, StreamRefused
        if the server refuses the packet, and Unreachable if it cannot be reached or is too busy.
        """
        self._send(_with_id(packet)[0], NEVER)

    def _send(self, packet: SocketPacket[Any], deadline: Deadline) -> None:
        total = self._plan.timeouts.total
        with self._turn(deadline), self._outgoing.adding(packet) as unsent:
            left = deadline.left if total is None else deadline.at_most(total).left
            self._events.converse(self._outgoing.deliver(left))
        unsent.check()

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait until no other thread sends. Raise Overdue if that takes too long."""
        left = deadline.left
        if not self._sending.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise Overdue("another thread was sending for all of the time")
        try:
            yield
        finally:
            self._sending.release()

    def request(self, packet: SocketPacket[Any], *, timeout: float | None = 30.0) -> P:
        """Send a packet and return its answer: the first packet whose `reply_to` is its id.

        Raise RequestFailed if that is an ERROR packet, and RequestTimedOut if none comes in time. A timeout ends the
        connection, and the next read makes a new one. The iteration gets all other packets.
        """
        packet, packet_id = _with_id(packet)
        deadline = Deadline(timeout)
        self._incoming.check_room(sent=False)
        with self._incoming.expecting(packet_id):
            try:
                self._send(packet, deadline)
                while (answer := self._incoming.answer_to(packet_id)) is None:
                    self._take(self._events.read(deadline))
            except (Overdue, Unreachable):
                if timeout is None or deadline.left != 0:
                    raise
                raise RequestTimedOut(packet_id, timeout) from None
        return answer

    def end(self) -> None:
        """End the session. The iteration then stops. Stay in the block until this returns."""
        self._events.converse(self._ending())

    def close(self) -> None:
        """Leave the session, which continues without you. The end of the block does this.

        For another thread that waits for the next packet, the iteration ends as soon as its read has returned.
        """
        self._events.close()

"""`tail`: follow a stream, with or without asyncio."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from pydantic_core import PydanticSerializationError, to_json

from ..events import Outcome
from ..wire.base import MAX_FRAME_BYTES, Frame
from .core import Following
from .errors import NotStoppable, Unreachable
from .http import AnyClients, AsyncHTTP, HTTPClient, SyncHTTP
from .requests import ask, check_url, hurried, with_parameters
from .settings import NEVER, Deadline, Loss, OnDegraded, OnReconnect, OnReset, Overdue, Plan, Retry, Timeouts
from .socket import AsyncSocket, SyncSocket
from .sorting import can_be_sent
from .transport import AsyncTransport, Command, Failed, Flow, Give, Open, Read, Say, SyncTransport

T = TypeVar("T")
R = TypeVar("R")

STOP = '{"event": "stop"}'


def tail(
    url: str,
    *,
    after: str | None = None,
    method: str | None = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    content: str | bytes | None = None,
    idempotency_key: str | bool | None = None,
    retry: Retry | None = None,
    timeouts: Timeouts | None = None,
    on_reset: OnReset = "raise",
    on_reconnect: OnReconnect | None = None,
    on_degraded: OnDegraded | None = None,
    allow_gaps: bool = False,
    takeover: bool = False,
    max_bytes: int = MAX_FRAME_BYTES,
    client: HTTPClient | None = None,
) -> Tail[Frame]:
    """Follow a stream: `async with tail(url) as events: async for event in events`, or both without `async`.

    An event is a Frame with `data`, `event` (its name, or None) and `id`. Failures raise ClientError or DecodeError.

    - `after`: continue after the event with this id.
    - `method`: POST if there is a body, otherwise GET.
    - `params`, `json`, `content`: query parameters and the body, for the first request only.
    - `headers`: for all requests to the origin of `url`. No other origin gets them.
    - `idempotency_key`: a name for the request, so that repeating it starts nothing twice. True makes a new one.
    - `on_reset`: "raise" StreamReset, or "restart": deliver an event `reset`, then the server's remaining events.
    - `on_reconnect`: a function to call with the attempt, the seconds until it, and the reason for it.
    - `on_degraded`: a function to call with True when the server cannot reach its store, so that events may be late,
      and with False when that is over.
    - `allow_gaps`: whether to reconnect even if events have no ids, so that some may be missed or repeated.
    - `takeover`: for a stream with one reader at a time. After a lost connection, take the place of that connection,
      which the server may still keep.
    - `max_bytes`: the bound for one event.
    - `client`: your own httpx client, which stays open.
    """
    if json is not None and content is not None:
        raise TypeError("expected json or content, but got both")
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        sent.setdefault("content-type", "application/json")
        content = encode(json)
    body = _in_utf8(content) if isinstance(content, str) else content
    plan = Plan(
        url=with_parameters(url, params),
        method=(method or ("GET" if body is None else "POST")).upper(),
        headers=sent,
        content=body,
        key=new_key() if idempotency_key is True else idempotency_key or None,
        after=after,
        retry=retry or Retry(),
        timeouts=timeouts or Timeouts(),
        on_reset=on_reset,
        on_reconnect=on_reconnect,
        on_degraded=on_degraded,
        allow_gaps=allow_gaps,
        takeover=takeover,
        max_bytes=max_bytes,
    )
    return Tail(plan, None, client)


def encode(value: Any) -> bytes:
    """Encode a value as JSON. Raise ValueError if that is impossible."""
    try:
        return to_json(value)
    except PydanticSerializationError as error:
        raise ValueError(f"expected JSON-able data, but got {value!r:.80}: {error}") from None


def _in_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"expected text that UTF-8 can encode, but got {text[:80]!r}: {error.reason}") from None


def new_key() -> str:
    """Make a unique idempotency key."""
    return secrets.token_urlsafe(16)


class Tail(Generic[T]):
    """A stream to follow. Entering it connects. After leaving it, you can enter it again."""

    def __init__(self, plan: Plan, convert: Callable[[Frame], T] | None, clients: AnyClients) -> None:
        if plan.is_socket:
            _check_socket(plan, clients)
        check_url(plan.url, is_whole=not isinstance(clients, HTTPClient))
        if plan.after is not None and not can_be_sent(plan.after):
            raise ValueError(f"expected an id that a header can hold as `after`, but got {plan.after[:80]!r}")
        self._plan = plan
        self._convert = convert
        self._clients = clients
        self._entered: AsyncEvents[T] | Events[T] | None = None

    async def __aenter__(self) -> AsyncEvents[T]:
        self._check_left()
        plan = self._plan
        transport = AsyncSocket(plan.max_bytes) if plan.is_socket else AsyncHTTP(self._clients)
        self._entered = events = AsyncEvents(Following(plan), self._convert, transport)
        try:
            await events.start()
        except BaseException:  # after any error, the stream is not entered
            self._entered = None
            raise
        return events

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        events, self._entered = self._entered, None
        assert isinstance(events, AsyncEvents), events
        await events.close()

    def __enter__(self) -> Events[T]:
        self._check_left()
        plan = self._plan
        transport = SyncSocket(plan.max_bytes) if plan.is_socket else SyncHTTP(self._clients)
        self._entered = events = Events(Following(plan), self._convert, transport)
        try:
            events.start()
        except BaseException:  # after any error, the stream is not entered
            self._entered = None
            raise
        return events

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        events, self._entered = self._entered, None
        assert isinstance(events, Events), events
        events.close()

    def _check_left(self) -> None:
        if self._entered is not None:
            raise RuntimeError("expected one `with` at a time, but this stream is being read: call tail() once more")


def _check_socket(plan: Plan, client: AnyClients) -> None:
    if client is not None:
        raise TypeError("expected no httpx client for a WebSocket, but got one")
    try:
        (plan.content or b"").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8 text as a WebSocket's message, but got other bytes: {error}") from None


class Reading(Generic[T]):
    """A stream during reading. It reads only when you ask for an event, and buffers at most one piece.

    Without `convert`, events are frames.
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
        """The id of the last event that you received. Pass it as `after` to continue later."""
        return self._cursor if self._pending else self._core.cursor

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the stream. None before the end, or if the server does not tell."""
        return self._core.outcome

    @property
    def degraded(self) -> bool:
        """True while the server cannot reach its store. The stream goes on, but events may be late."""
        return self._core.degraded

    @property
    def address(self) -> str | None:
        """The address of the stream itself, if the server has named it."""
        return self._core.address

    @property
    def media_type(self) -> str | None:
        """The media type of the response, such as `text/event-stream`, or `websocket`. None before a response."""
        return self._core.media_type

    def _pop_all(self) -> list[T]:
        return [self._pop() for _ in range(len(self._pending))]

    def _pop(self) -> T:
        frame: Any = self._pending.popleft()
        if frame.id is not None:
            self._cursor = frame.id
        event: T = frame if self._convert is None else self._convert(frame)
        return event

    def _begin(self) -> None:
        """Start to wait for events. Only one reader may wait at a time, and none after an error or after leaving."""
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
        """Return the core's next command, or None at the end or if the stream was left in the meantime."""
        if self._is_left:
            return None
        reply, self._reply = self._reply, None
        try:
            return self._flow.send(reply)
        except StopIteration:
            return None

    def _take(self, frames: Sequence[Frame]) -> None:
        """Keep the frames from the core. No frames mean that the stream is open."""
        if frames:
            self._pending.extend(frames)
        else:
            self._cursor = self._core.cursor

    def _break_off(self, error: BaseException) -> None:
        """Note that a command was interrupted. After an error, the stream ends; otherwise the core connects again."""
        self._error = error if isinstance(error, Exception) and not isinstance(error, Overdue) else None
        self._reply = Failed(Loss("broken", "the reading was interrupted"), ours=True)

    def _stopping(self) -> Flow[None]:
        """Ask the server to stop the stream. Raise NotStoppable if it has named no address for that."""
        plan = self._core.plan
        if plan.is_socket:
            reply = yield Say(STOP)
            if isinstance(reply, Failed):
                raise Unreachable(reply.loss, 1)
            return
        if (address := self._core.stop_address) is None:
            raise NotStoppable
        headers = {name: value for name, value in plan.headers.items() if not name.lower().startswith("content-")}
        timeouts = plan.timeouts
        request = Open("POST", address, headers, None, timeouts.connect, timeouts.idle, timeouts.head)
        yield from ask(request, plan.retry, repeatable=True, total=timeouts.total)


class AsyncEvents(Reading[T], Generic[T]):
    """A stream's events for `async for`, across any number of connections."""

    def __init__(self, core: Following, convert: Callable[[Frame], T] | None, transport: AsyncTransport) -> None:
        super().__init__(core, convert)
        self._transport = transport

    def __aiter__(self) -> AsyncEvents[T]:
        return self

    async def __anext__(self) -> T:
        while not self._pending:
            if not await self._fill():
                raise StopAsyncIteration
        return self._pop()

    async def read(self) -> list[T]:
        """Wait for events, and return all that have arrived. No events mean the end."""
        while not self._pending:
            if not await self._fill():
                return []
        return self._pop_all()

    async def start(self) -> None:
        """Connect, or raise the error if the server refuses the stream."""
        try:
            await self._fill()
        except BaseException:  # nobody else can close the connection yet
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the stream, which continues without you. If a task waits for the next event, its iteration ends."""
        self._is_left = True
        await self._transport.leave()

    async def stop(self) -> None:
        """Stop the stream itself, for all its readers. The iteration then ends, and `outcome` says so."""
        await self.converse(self._stopping())

    async def converse(self, flow: Flow[R]) -> R:
        """Carry out other requests to the stream's server, during the reading or after it."""
        return await self._transport.beside().converse(flow)

    async def _fill(self) -> bool:
        """Run the core until there are events or the stream is open. Return False at the end."""
        self._begin()
        try:
            while (command := self._next_command()) is not None:
                if isinstance(command, Give):
                    self._take(command.frames)
                    return True
                if isinstance(command, Read):
                    self._reply = await self._transport.read(command.within)
                else:
                    self._reply = await self._transport.perform(command)
        except BaseException as error:  # after an error or a cancellation, this connection is useless
            self._break_off(error)
            await self._transport.close()
            raise
        finally:
            self._is_busy = False
        await self._transport.close()  # it may have been opened while another task left the stream
        return False


class Events(Reading[T], Generic[T]):
    """A stream's events for `for`, across any number of connections."""

    def __init__(self, core: Following, convert: Callable[[Frame], T] | None, transport: SyncTransport) -> None:
        super().__init__(core, convert)
        self._transport = transport

    def __iter__(self) -> Events[T]:
        return self

    def __next__(self) -> T:
        while not self._pending:
            if not self._fill():
                raise StopIteration
        return self._pop()

    def read(self, deadline: Deadline = NEVER) -> list[T]:
        """Wait for events, and return all that have arrived. No events mean the end.

        Raise Overdue at the deadline. This ends the connection, and the next wait resumes the stream on a new one.
        """
        while not self._pending:
            if not self._fill(deadline):
                return []
        return self._pop_all()

    def start(self) -> None:
        """Connect, or raise the error if the server refuses the stream."""
        try:
            self._fill()
        except BaseException:  # nobody else can close the connection yet
            self.close()
            raise

    def close(self) -> None:
        """Leave the stream, which continues without you.

        For another thread that waits for the next event, the iteration ends as soon as its read has returned.
        """
        self._is_left = True
        self._transport.leave()

    def stop(self) -> None:
        """Stop the stream itself, for all its readers. The iteration then ends, and `outcome` says so."""
        self.converse(self._stopping())

    def converse(self, flow: Flow[R]) -> R:
        """Carry out other requests to the stream's server, during the reading or after it."""
        return self._transport.beside().converse(flow)

    def _fill(self, deadline: Deadline = NEVER) -> bool:
        self._begin()
        try:
            while (command := self._next_command()) is not None:
                if isinstance(command, Give):
                    self._take(command.frames)
                    return True
                if deadline.is_never and isinstance(command, Read):
                    self._reply = self._transport.read(command.within)
                else:
                    self._reply = self._transport.perform(hurried(command, deadline))
                    if deadline.left == 0 and isinstance(self._reply, Failed | None):
                        raise Overdue
        except BaseException as error:  # after an error, Ctrl-C or the deadline, this connection is useless
            self._break_off(error)
            self._transport.close()
            raise
        finally:
            self._is_busy = False
        self._transport.close()
        return False

"""`ChatClient`: a typed client for the chat server's endpoints.

Each request is written once, as a core without I/O. `AsyncChat` and `Chat` run the cores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import update_wrapper
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from ..errors import DecodeError
from ..wire.base import Frame
from .errors import unexpected
from .http import AnyClients, AsyncHTTP, HTTPClient, SyncHTTP
from .objects import (
    KINDS,
    ChatObject,
    Chunk,
    Complete,
    Deleted,
    Health,
    Reply,
    ServerInformation,
    Session,
    SessionDetails,
    SessionInfo,
    SessionPage,
    Stats,
    Status,
    Stopped,
)
from .requests import ask, check_url, with_parameters
from .settings import OnDegraded, OnReconnect, OnReset, Plan, Retry, Timeouts
from .stream import Tail, encode, new_key
from .transport import Flow, Open

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
P = ParamSpec("P")
A = TypeVar("A", covariant=True)
S = TypeVar("S", covariant=True)

# Reading answers


def read_object(frame: Frame) -> ChatObject:
    """Read the object in an event. Raise DecodeError if there is none."""
    data = frame.data
    if not isinstance(data, dict):
        raise DecodeError(f"expected an object of a reply, but got {data!r:.80}")
    kind = str(data.get("type", frame.event))
    model = KINDS.get(kind, ChatObject)
    try:
        return model.model_validate({**data, "type": kind, "id": frame.id})
    except ValidationError as error:
        raise unexpected(model, error) from None


def read_json(model: type[M], body: bytes) -> M:
    """Read a response body as its model. Raise DecodeError if it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise unexpected(model, error) from None


class _Gathered:
    """Gathers the objects of a stream into a reply."""

    def __init__(self, stream: Tail[ChatObject]) -> None:
        self.stream = stream
        self._info: SessionInfo | None = None
        self._status: Status | None = None
        self._complete: Complete | None = None
        self._texts: list[str] = []

    def add(self, each: ChatObject) -> None:
        if isinstance(each, SessionInfo):
            self._info = each
        elif isinstance(each, Status):
            self._status = each
        elif isinstance(each, Chunk):
            self._texts.append(each.text)
        elif isinstance(each, Complete):
            self._complete = each
        elif each.type == "reset":
            self._texts.clear()

    def reply(self) -> Reply:
        if self._info is None or self._complete is None:
            raise DecodeError("expected a reply from session_info to complete, but got only a part of it")
        return Reply(
            session_id=self._info.session_id,
            stream_id=self._info.stream_id,
            model=self._info.model,
            text="".join(self._texts),
            state=self._complete.state,
            total_chunks=self._complete.total_chunks,
            processing_time=self._complete.processing_time,
            message_count=self._complete.message_count,
            context_messages=self._status.context_messages if self._status is not None else 0,
        )


# Methods that both chats share


class _Method(Generic[P, A, S]):
    """A method of both chats. It returns an A in `AsyncChat` and an S in `Chat`. `drive` names the core's driver."""

    def __init__(self, core: Callable[Concatenate[Any, P], object], drive: str) -> None:
        self._core = core
        self._drive = drive
        update_wrapper(self, core)  # type: ignore[arg-type]

    @overload
    def __get__(self, chat: AsyncChat, owner: object = None) -> Callable[P, A]: ...
    @overload
    def __get__(self, chat: Chat, owner: object = None) -> Callable[P, S]: ...
    @overload
    def __get__(self, chat: None, owner: object = None) -> _Method[P, A, S]: ...
    def __get__(self, chat: AsyncChat | Chat | None, owner: object = None) -> Any:
        if chat is None:
            return self
        core, drive = MethodType(self._core, chat), getattr(chat, self._drive)

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return drive(core(*args, **kwargs))

        return update_wrapper(method, core)


_Request: TypeAlias = _Method[P, Coroutine[Any, Any, R], R]


def _request(core: Callable[Concatenate[Any, P], Flow[R]]) -> _Request[P, R]:
    """Make a method with one request and its answer."""
    return _Method(core, "_converse")


def _pages(
    core: Callable[Concatenate[Any, P], Generator[Flow[SessionPage], SessionPage, None]],
) -> _Method[P, AsyncIterator[Session], Iterator[Session]]:
    """Make a method that iterates over the items of its requests, one page at a time."""
    return _Method(core, "_iterate")


def _gathering(core: Callable[Concatenate[Any, P], _Gathered]) -> _Request[P, Reply]:
    """Make a method that reads a stream to its end."""
    return _Method(core, "_gather")


@dataclass(frozen=True, slots=True)
class _Server:
    """The address of a chat server, and the settings of requests to it."""

    url: str
    headers: Mapping[str, str]
    retry: Retry
    timeouts: Timeouts
    on_reconnect: OnReconnect | None
    on_degraded: OnDegraded | None

    def plan(self, path: str, **options: Any) -> Plan:
        return Plan(
            url=self.url + path,
            retry=self.retry,
            timeouts=self.timeouts,
            on_reconnect=self.on_reconnect,
            on_degraded=self.on_degraded,
            headers={"accept": "text/event-stream", "content-type": "application/json", **self.headers},
            gives_result=True,
            **options,
        )


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _with_reasoning(path: str, reasoning: bool) -> str:
    return with_parameters(path, {"reasoning": reasoning or None})


def _said(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


class Chatting:
    """The methods of both chats."""

    def __init__(self, server: _Server, clients: AnyClients) -> None:
        self._server = server
        self._clients = clients

    def stream(
        self,
        message: str,
        session_id: str | None = None,
        *,
        create: bool = True,
        replace: str | None = None,
        idempotency_key: str | None = None,
        on_reset: OnReset = "raise",
        reasoning: bool = False,
    ) -> Tail[ChatObject]:
        """Send a message and follow the reply, by `with` or `async with`. Without a `session_id`, a session begins.

        A `session_id` that does not exist also begins a session. If `create` is false, it raises StreamRefused with
        status 404 instead.

        With `replace`, the message and its reply take the place of the session's last turn, which has this stream. Use
        the same message to generate its reply again. Raise TurnNotLast if another turn is the last one.

        The server answers the message once, however often the client sends it, because it recognises the idempotency
        key, which is yours or a new one. With `reasoning`, the reply includes the model's reasoning. Raise StreamFailed
        if the model fails, and SessionBusy if the session is already answering.
        """
        said = _said(message=message, session_id=session_id, create=None if create else False, replace=replace)
        key = idempotency_key or new_key()
        path = _with_reasoning("/chat/stream", reasoning)
        plan = self._server.plan(path, method="POST", content=encode(said), key=key, on_reset=on_reset)
        return Tail(plan, read_object, self._clients)

    def resume(
        self, stream_id: str, after: str | None = None, *, on_reset: OnReset = "raise", reasoning: bool = False
    ) -> Tail[ChatObject]:
        """Follow a reply from its beginning, or after the object with the id `after`."""
        path = _with_reasoning(_path("chat", "stream", stream_id), reasoning)
        plan = self._server.plan(path, after=after, on_reset=on_reset)
        return Tail(plan, read_object, self._clients)

    @_gathering
    def ask(
        self,
        message: str,
        session_id: str | None = None,
        *,
        replace: str | None = None,
        idempotency_key: str | None = None,
    ) -> _Gathered:
        """Send a message and wait for the whole reply. `replace` is that of `stream`."""
        key = idempotency_key
        return _Gathered(self.stream(message, session_id, replace=replace, idempotency_key=key, on_reset="restart"))

    @_request
    def stop(self, stream_id: str) -> Flow[Stopped]:
        """Stop a reply. The server keeps the text so far."""
        return self._ask(Stopped, "POST", _path("chat", "stream", stream_id, "stop"))

    @_request
    def new_session(self) -> Flow[Session]:
        """Begin a session."""
        return self._ask(Session, "POST", "/sessions/new", repeatable=False)

    @_pages
    def sessions(self, page: int = 50, *, search: str | None = None) -> Generator[Flow[SessionPage], SessionPage, None]:
        """Iterate over all sessions, the most recently used first. `page` is the number of sessions per request.

        With `search`, iterate over those whose title or messages have this text, in upper or lower case.
        """
        token = None
        while True:
            got = yield self._ask(SessionPage, "GET", "/sessions", limit=page, after=token, q=search)
            if (token := got.next) is None:
                return

    @_request
    def session(self, session_id: str, *, limit: int = 100, before: str | None = None) -> Flow[SessionDetails]:
        """Get a session and the messages of its newest `limit` turns, or of those `before` an `earlier` token."""
        return self._ask(SessionDetails, "GET", _path("sessions", session_id), limit=limit, before=before)

    @_request
    def rename(self, session_id: str, title: str) -> Flow[Session]:
        """Give a session a title of 1 to 200 characters, which its messages no longer change."""
        return self._ask(Session, "PATCH", _path("sessions", session_id), content=encode({"title": title}))

    def changes(self, after: str | None = None, *, on_reset: OnReset = "restart") -> Tail[ChatObject]:
        """Follow what happens to your sessions, from now on or after the change with the id `after`.

        Each is a `SessionChange`. An object of type `reset` tells that some are missing: list the sessions again. The
        stream ends only when you leave it.
        """
        plan = self._server.plan("/sessions/changes", after=after, on_reset=on_reset)
        return Tail(changed(plan, timeouts=changed(plan.timeouts, event=None)), read_object, self._clients)

    @_request
    def clear(self, session_id: str) -> Flow[Session]:
        """Empty a session's history."""
        return self._ask(Session, "POST", _path("sessions", session_id, "clear"))

    @_request
    def delete(self, session_id: str) -> Flow[None]:
        """Delete a session and all its messages."""
        # Do not repeat the request: the second answer would be that there is no such session.
        yield from self._ask(Deleted, "DELETE", _path("sessions", session_id), repeatable=False)

    @_request
    def health(self) -> Flow[Health]:
        """Get the server's health. An unhealthy server also answers."""
        return self._ask(Health, "GET", "/health", accepted=(503,))

    @_request
    def stats(self) -> Flow[Stats]:
        """Get the server's statistics."""
        return self._ask(Stats, "GET", "/stats")

    @_request
    def info(self) -> Flow[ServerInformation]:
        """Get a description of the server and its endpoints."""
        return self._ask(ServerInformation, "GET", "/")

    def _ask(
        self,
        model: type[M],
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        accepted: tuple[int, ...] = (),
        content: bytes | None = None,
        **params: Any,
    ) -> Flow[M]:
        server, timeouts = self._server, self._server.timeouts
        url = with_parameters(server.url + path, params)
        headers = {"accept": "application/json", **server.headers}
        if content is not None:
            headers["content-type"] = "application/json"
        request = Open(method, url, headers, content, timeouts.connect, timeouts.idle, timeouts.head)
        answer = yield from ask(request, server.retry, repeatable=repeatable, accepted=accepted, total=timeouts.total)
        return read_json(model, answer.body)


class AsyncChat(Chatting):
    """A client of a chat server, with asyncio."""

    async def _converse(self, flow: Flow[R]) -> R:
        return await AsyncHTTP(self._clients).converse(flow)

    async def _iterate(self, core: Generator[Flow[SessionPage], SessionPage, None]) -> AsyncIterator[Session]:
        flow = _advance(core, None)
        while flow is not None:
            got = await self._converse(flow)
            for session in got.sessions:
                yield session
            flow = _advance(core, got)

    async def _gather(self, gathered: _Gathered) -> Reply:
        async with gathered.stream as objects:
            async for each in objects:
                gathered.add(each)
        return gathered.reply()


class Chat(Chatting):
    """A client of a chat server, without asyncio."""

    def _converse(self, flow: Flow[R]) -> R:
        return SyncHTTP(self._clients).converse(flow)

    def _iterate(self, core: Generator[Flow[SessionPage], SessionPage, None]) -> Iterator[Session]:
        flow = _advance(core, None)
        while flow is not None:
            got = self._converse(flow)
            yield from got.sessions
            flow = _advance(core, got)

    def _gather(self, gathered: _Gathered) -> Reply:
        with gathered.stream as objects:
            for each in objects:
                gathered.add(each)
        return gathered.reply()


def _advance(core: Generator[Flow[SessionPage], Any, None], got: SessionPage | None) -> Flow[SessionPage] | None:
    """Give a core its answer, and return its next request, or None after the last one."""
    try:
        return core.send(got)
    except StopIteration:
        return None


class ChatClient:
    """A client of the chat server at `url`. Enter it with `async with ChatClient(url) as chat`, or without `async`.

    `api_key` is one of the server's keys, if it has any. If you pass a `client`, it stays open.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        on_reconnect: OnReconnect | None = None,
        on_degraded: OnDegraded | None = None,
        client: HTTPClient | None = None,
    ) -> None:
        check_url(url)
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._server = _Server(
            url.rstrip("/"), headers, retry or Retry(), timeouts or Timeouts(), on_reconnect, on_degraded
        )
        self._client = client
        self._http: AsyncHTTP | SyncHTTP | None = None

    async def __aenter__(self) -> AsyncChat:
        self._check_left()
        self._http = http = AsyncHTTP(self._client)
        return AsyncChat(self._server, http.clients)

    async def __aexit__(self, *_: object) -> None:
        http, self._http = self._http, None
        assert isinstance(http, AsyncHTTP), http
        await http.leave()

    def __enter__(self) -> Chat:
        self._check_left()
        self._http = http = SyncHTTP(self._client)
        return Chat(self._server, http.clients)

    def __exit__(self, *_: object) -> None:
        http, self._http = self._http, None
        assert isinstance(http, SyncHTTP), http
        http.leave()

    def _check_left(self) -> None:
        if self._http is not None:
            raise RuntimeError("expected one `with` at a time, but this ChatClient is in use: make another one")

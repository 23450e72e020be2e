"""`ChatClient`: the chat server's endpoints, typed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from ..errors import DecodeError
from ..wire.base import Frame
from .commands import Flow, Open
from .http import AsyncHTTP, HTTPClient, SyncHTTP
from .links import check_url, with_parameters
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
from .plan import Plan
from .refusals import ask
from .settings import OnReconnect, OnReset, Retry, Timeouts
from .stream import Tail, encode, new_key

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Call(Generic[M]):
    """A request and what its answer is. Only what is `repeatable` is sent again where it may have arrived."""

    method: str
    path: str
    model: type[M]
    params: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    accepted: tuple[int, ...] = ()


def read_object(frame: Frame) -> ChatObject:
    """Read the object in an event; DecodeError if there is none."""
    data = frame.data
    if not isinstance(data, dict):
        raise DecodeError(f"expected an object of a reply, but got {data!r:.80}")
    kind = str(data.get("type", frame.event))
    model = KINDS.get(kind, ChatObject)
    try:
        return model.model_validate({**data, "type": kind, "id": frame.id})
    except ValidationError as error:
        raise _unexpected(model, error) from None


def read_json(model: type[M], body: bytes) -> M:
    """Read a response body as its model; DecodeError if it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _unexpected(model, error) from None


def _unexpected(model: type[BaseModel], error: ValidationError) -> DecodeError:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return DecodeError(f"expected {model.__name__} from the server, but in {place}: {first['msg']}")


# The endpoints

_INFORMATION = _Call("GET", "/", ServerInformation)
# Unhealthy is an answer, too.
_HEALTH = _Call("GET", "/health", Health, accepted=(503,))
_STATS = _Call("GET", "/stats", Stats)
_NEW_SESSION = _Call("POST", "/sessions/new", Session, repeatable=False)


def _session(session_id: str, limit: int, before: str | None) -> _Call[SessionDetails]:
    return _Call("GET", _path("sessions", session_id), SessionDetails, _said(limit=limit, before=before))


def _sessions(limit: int, after: str | None) -> _Call[SessionPage]:
    return _Call("GET", "/sessions", SessionPage, _said(limit=limit, after=after))


def _clear(session_id: str) -> _Call[Session]:
    return _Call("POST", _path("sessions", session_id, "clear"), Session)


def _delete(session_id: str) -> _Call[Deleted]:
    # Not repeatable: a second one would be told that there is no such session.
    return _Call("DELETE", _path("sessions", session_id), Deleted, repeatable=False)


def _stop(stream_id: str) -> _Call[Stopped]:
    return _Call("POST", _path("chat", "stream", stream_id, "stop"), Stopped)


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _said(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Server:
    """Where the chat server is, and how it is talked to."""

    url: str
    headers: Mapping[str, str]
    retry: Retry
    timeouts: Timeouts
    on_reconnect: OnReconnect | None

    def call(self, call: _Call[M]) -> Flow[M]:
        url = with_parameters(self.url + call.path, call.params)
        headers = {"accept": "application/json", **self.headers}
        request = Open(call.method, url, headers, None, self.timeouts.connect, self.timeouts.idle)
        total = self.timeouts.total
        answer = yield from ask(request, self.retry, repeatable=call.repeatable, accepted=call.accepted, total=total)
        return read_json(call.model, answer.body)

    def plan(self, path: str, **options: Any) -> Plan:
        return Plan(
            url=self.url + path,
            retry=self.retry,
            timeouts=self.timeouts,
            on_reconnect=self.on_reconnect,
            headers={"accept": "text/event-stream", "content-type": "application/json", **self.headers},
            **options,
        )


class _Chatting:
    """What a chat has with asyncio and without."""

    def __init__(self, server: _Server, client: HTTPClient) -> None:
        self._server = server
        self._client = client

    def stream(
        self,
        message: str,
        session_id: str | None = None,
        *,
        idempotency_key: str | None = None,
        on_reset: OnReset = "raise",
    ) -> Tail[ChatObject]:
        """Send a message and follow the reply, by `with` or `async with`; without a `session_id` a session begins.

        However often it is sent, the message is asked once: by the key that is given, or one of its own.
        StreamFailed if the model fails, SessionBusy if the session is answering already.
        """
        body = encode(_said(message=message, session_id=session_id))
        key = idempotency_key or new_key()
        plan = self._server.plan("/chat/stream", method="POST", content=body, key=key, on_reset=on_reset)
        return Tail(plan, read_object, self._client)

    def resume(self, stream_id: str, after: str | None = None, *, on_reset: OnReset = "raise") -> Tail[ChatObject]:
        """Follow a reply from its beginning, or after the `id` of one of its objects."""
        plan = self._server.plan(_path("chat", "stream", stream_id), after=after, on_reset=on_reset)
        return Tail(plan, read_object, self._client)


class AsyncChat(_Chatting):
    """A chat server, with asyncio."""

    async def ask(self, message: str, session_id: str | None = None, *, idempotency_key: str | None = None) -> Reply:
        """Send a message and wait for the whole reply."""
        gathered = _Gathered()
        stream = self.stream(message, session_id, idempotency_key=idempotency_key, on_reset="restart")
        async with stream as objects:
            async for each in objects:
                gathered.add(each)
        return gathered.reply()

    async def sessions(self, page: int = 50) -> AsyncIterator[Session]:
        """All sessions, the last used first, asked for by so many at a time."""
        token = None
        while True:
            got = await self._do(_sessions(page, token))
            for session in got.sessions:
                yield session
            if (token := got.next) is None:
                return

    async def session(self, session_id: str, *, limit: int = 100, before: str | None = None) -> SessionDetails:
        """A session and the messages of its newest `limit` turns, or of those `before` an `earlier` token."""
        return await self._do(_session(session_id, limit, before))

    async def new_session(self) -> Session:
        """Begin a session."""
        return await self._do(_NEW_SESSION)

    async def clear(self, session_id: str) -> Session:
        """Empty a session's history."""
        return await self._do(_clear(session_id))

    async def delete(self, session_id: str) -> None:
        """Delete a session and all that was said."""
        await self._do(_delete(session_id))

    async def stop(self, stream_id: str) -> Stopped:
        """Stop a reply; what the model has written is kept."""
        return await self._do(_stop(stream_id))

    async def health(self) -> Health:
        """How the server is; an unhealthy one has an answer, too."""
        return await self._do(_HEALTH)

    async def stats(self) -> Stats:
        """What the server counts."""
        return await self._do(_STATS)

    async def info(self) -> ServerInformation:
        """What the server is."""
        return await self._do(_INFORMATION)

    async def _do(self, call: _Call[M]) -> M:
        return await AsyncHTTP(self._client).converse(self._server.call(call))


class Chat(_Chatting):
    """A chat server, without asyncio."""

    def ask(self, message: str, session_id: str | None = None, *, idempotency_key: str | None = None) -> Reply:
        """Send a message and wait for the whole reply."""
        gathered = _Gathered()
        stream = self.stream(message, session_id, idempotency_key=idempotency_key, on_reset="restart")
        with stream as objects:
            for each in objects:
                gathered.add(each)
        return gathered.reply()

    def sessions(self, page: int = 50) -> Iterator[Session]:
        """All sessions, the last used first, asked for by so many at a time."""
        token = None
        while True:
            got = self._do(_sessions(page, token))
            yield from got.sessions
            if (token := got.next) is None:
                return

    def session(self, session_id: str, *, limit: int = 100, before: str | None = None) -> SessionDetails:
        """A session and the messages of its newest `limit` turns, or of those `before` an `earlier` token."""
        return self._do(_session(session_id, limit, before))

    def new_session(self) -> Session:
        """Begin a session."""
        return self._do(_NEW_SESSION)

    def clear(self, session_id: str) -> Session:
        """Empty a session's history."""
        return self._do(_clear(session_id))

    def delete(self, session_id: str) -> None:
        """Delete a session and all that was said."""
        self._do(_delete(session_id))

    def stop(self, stream_id: str) -> Stopped:
        """Stop a reply; what the model has written is kept."""
        return self._do(_stop(stream_id))

    def health(self) -> Health:
        """How the server is; an unhealthy one has an answer, too."""
        return self._do(_HEALTH)

    def stats(self) -> Stats:
        """What the server counts."""
        return self._do(_STATS)

    def info(self) -> ServerInformation:
        """What the server is."""
        return self._do(_INFORMATION)

    def _do(self, call: _Call[M]) -> M:
        return SyncHTTP(self._client).converse(self._server.call(call))


class ChatClient:
    """A client of the chat server at `url`: `async with ChatClient(url) as chat`, or the same without `async`.

    `api_key` is one of the server's, where it has any. A `client` of your own is not closed.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        on_reconnect: OnReconnect | None = None,
        client: HTTPClient | None = None,
    ) -> None:
        check_url(url)
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._server = _Server(url.rstrip("/"), headers, retry or Retry(), timeouts or Timeouts(), on_reconnect)
        self._client = client
        self._http: AsyncHTTP | SyncHTTP | None = None

    async def __aenter__(self) -> AsyncChat:
        self._check_left()
        self._http = http = AsyncHTTP(self._client)
        return AsyncChat(self._server, http.client)

    async def __aexit__(self, *_: object) -> None:
        http, self._http = self._http, None
        assert isinstance(http, AsyncHTTP), http
        await http.leave()

    def __enter__(self) -> Chat:
        self._check_left()
        self._http = http = SyncHTTP(self._client)
        return Chat(self._server, http.client)

    def __exit__(self, *_: object) -> None:
        http, self._http = self._http, None
        assert isinstance(http, SyncHTTP), http
        http.leave()

    def _check_left(self) -> None:
        if self._http is not None:
            raise RuntimeError("expected one `with` at a time, but this ChatClient is in use: make another one")


class _Gathered:
    """The objects of a reply, as one."""

    def __init__(self) -> None:
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

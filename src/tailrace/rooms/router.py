"""`rooms_router`: the routes of rooms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Unpack, cast
from urllib.parse import quote

from fastapi import Depends, params
from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..asgi.decision import address, remaining_query
from ..asgi.lifespan import app_engine
from ..asgi.origins import is_admitted
from ..asgi.reply import refusal_of
from ..asgi.response import StreamResponse
from ..asgi.settings import StreamSettings
from ..engine.engine import Engine
from ..errors import LogClosed, LogReset, NotAcceptable, StoreUnavailable, StreamError
from ..flow import Flow, Retention
from ..modes import DEFAULT_WIRES, choose_wire
from ..routing.body import BodyRefused, media_type_of, read_body, read_lines
from ..routing.openapi import CURSOR_PARAMETERS, Refusal, stream_response, stream_responses
from ..routing.router import RouterOptions, StreamRouter
from ..wire.base import Wire
from ..wire.ndjson import NDJSON
from ..wire.text import Text
from .limits import RoomLimits
from .room import Room, Rooms, RoomSettings

Member = Callable[..., Any]
"""A dependency that gives the name of the member who sends a request, or None."""

WIRES: tuple[Wire, ...] = tuple(wire for wire in DEFAULT_WIRES if not isinstance(wire, Text))
"""The wires of a room. Plain text has no names of events, nor cursors."""

RETENTION = Retention(count=1_000, size=4 << 20)


class Said(BaseModel):
    """A message in a room."""

    member: str | None = Field(description="Who sent it, or null.")
    message: Any = Field(description="What was sent: any JSON value.")
    time: str = Field(description="When the server got it: ISO 8601 in UTC.")


class Published(BaseModel):
    """The messages of a request are in the room."""

    accepted: int = Field(description="The number of messages.")


class MemberOf(BaseModel):
    """A member of a room."""

    id: str


class Members(BaseModel):
    """The members of a room, in all processes."""

    members: list[MemberOf]
    count: int


class RoomsRouter(StreamRouter):
    """The routes of rooms, whose names are a part of the path. Include it in an application like any router.

    GET reads a room and POST publishes in it. A WebSocket at the same path does both. GET at `path/members` tells who
    is there. Each room is a log, so readers resume with the cursor of the last event that they have.
    """

    def __init__(
        self,
        path: str = "/rooms/{room}",
        *,
        member: Member | None = None,
        read: Sequence[params.Depends] = (),
        write: Sequence[params.Depends] = (),
        engine: Engine | None = None,
        limits: RoomLimits | None = None,
        history: int = 50,
        retention: Retention | None = None,
        flow: Flow | None = None,
        leave_delay: float = 3.0,
        presence: bool = True,
        origins: Collection[str] = (),
        **options: Unpack[RouterOptions],
    ) -> None:
        """Make a router. The last parameter of `path` is the room's name. `options` are those of APIRouter.

        - `member`: a dependency that returns the name of the member who sends the request, or None for somebody whom
          the others do not see. By default, nobody is seen.
        - `read`, `write`: dependencies that guard reading and writing. A WebSocket is accepted only after the former.
        - `engine`: where the rooms live. Default: the application's own engine.
        - `limits`: the bounds of rooms and of what members send.
        - `history`: how many events a first join gets.
        - `retention`: how many events are kept for those who come back. Default: 1,000, and 4 MiB.
        - `flow`: the policy for members that read slowly. Default: `Flow.log()`.
        - `leave_delay`: the seconds in which a member may come back without having left.
        - `presence`: whether to announce joins and leaves and to list the members. Without it, `members` is not served.
        - `origins`: the origins whose pages may open a WebSocket, in addition to those of the same host.
        """
        super().__init__(engine=engine, origins=origins, **options)
        self._parameter = _last_parameter(path)
        self._template = re.sub(r"\{(\w+)[^}]*\}", r"{\1}", self.prefix + path)
        self._member = member or _nobody
        flow, retention = flow or Flow.log(), retention or RETENTION
        self._stream = StreamSettings(wires=WIRES, flow=flow, cache_control="no-cache, no-store, no-transform")
        processes = f"{self._template} processes"
        settings = RoomSettings(limits or RoomLimits(), history, retention, flow, leave_delay, presence)
        self.rooms = Rooms(processes, settings)
        self._presence = presence
        self._add_routes(path, list(read), list(write))

    async def room(self, name: str, **parameters: Any) -> Room:
        """Return a room, to read it or to publish in it from code. The router must have been given its engine.

        `parameters` are those of the path that come before the room's name.
        """
        if self.engine is None:
            raise RuntimeError("expected a router with an engine of its own, but got none: rooms_router(engine=...)")
        return await self._get(self.engine, {**parameters, self._parameter: name})

    # Routes

    def _add_routes(self, path: str, read: list[params.Depends], write: list[params.Depends]) -> None:
        response = stream_response(WIRES, f"room {self.prefix}{path}", Said)
        reading = {**stream_responses(200, response), **_REFUSED}
        name = {"name": self._parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        allowed = "GET, HEAD, POST, OPTIONS"
        extra = {"parameters": [name, *CURSOR_PARAMETERS]}
        get, post = self._reading(), self._writing()
        self._add(path, get, "GET", allowed, dependencies=read, responses=reading, openapi_extra=extra)
        self._add(path, get, "HEAD", allowed, dependencies=read, include_in_schema=False)
        body = {"parameters": [name, _KEY], "requestBody": _BODY}
        accepted = {202: {"model": Published}, **_REFUSED, **_UNACCEPTED}
        self._add(
            path, post, "POST", allowed, dependencies=write, status_code=202, responses=accepted, openapi_extra=body
        )
        self._add_options(path, allowed)
        self._add_socket_at(path, "GET")
        if self._presence:
            self._add_listing(path, name, read)

    def _add_listing(self, path: str, name: dict[str, Any], read: list[params.Depends]) -> None:
        listing = {200: {"model": Members}, **_REFUSED}
        self._add(
            f"{path}/members", self._listing(), "GET", "GET, OPTIONS",
            dependencies=read, responses=listing, openapi_extra={"parameters": [name]},
        )  # fmt: skip
        self._add_options(f"{path}/members", "GET, OPTIONS")

    def _reading(self) -> Callable[..., Any]:
        async def read_room(request: Request, member: Any = Depends(self._member)) -> Response:
            """Read the newest events of a room, or those after a cursor, and what follows."""
            seen, engine = _checked(member) if self._presence else None, self._engine_of(request)
            async with AsyncExitStack() as stack:
                room = await stack.enter_async_context(self._using(request))
                room.check_space()
                # The response uses the room until it ends.
                return _RoomResponse(room, seen, self._stream, engine, request.scope, leave=stack.pop_all().aclose)

        return read_room

    def _writing(self) -> Callable[..., Any]:
        async def publish(request: Request, member: Any = Depends(self._member)) -> Response:
            """Publish in a room: a message as JSON or text, or several as lines of NDJSON, all of them or none.

            With an Idempotency-Key, you may repeat the request, and the messages are in the room once.
            """
            name = _checked(member)
            async with self._using(request) as room:
                messages = await self._read_messages(request)
                self.rooms.check_rate(room, name or _host_of(request), len(messages))
                await room.publish(*messages, member=name, key=_key_of(request, name, messages))
            return JSONResponse(Published(accepted=len(messages)).model_dump(), 202)

        return publish

    async def _read_messages(self, request: Request) -> list[Any]:
        limits = self.rooms.settings.limits
        # A page of another site can send text without asking the server first (CORS).
        if media_type_of(request) == "text/plain" and is_admitted(request.scope, self._origins):
            body = await read_body(request, limit=limits.body, seconds=limits.seconds)
            return [_text_in(body, limits)] if body.strip() else _messages_in([], limits, typed=True)
        lines = await read_lines(request, limit=limits.body, seconds=limits.seconds)
        return _messages_in(lines, limits, typed=media_type_of(request) != "application/json")

    def _listing(self) -> Callable[..., Any]:
        async def list_members(request: Request) -> Response:
            """List the members of a room."""
            async with self._using(request) as room:
                members = await room.members()
            listed = Members(members=[MemberOf(id=name) for name in members], count=len(members))
            return JSONResponse(listed.model_dump(), headers={"Cache-Control": "no-store"})

        return list_members

    @asynccontextmanager
    async def _using(self, request: Request) -> AsyncIterator[Room]:
        engine = self._engine_of(request)
        room = await self._get(engine, request.path_params)
        try:
            with _unless_lost(room):
                yield room
        finally:
            await self.rooms.leave(engine, room)

    async def _get(self, engine: Engine, parameters: Mapping[str, Any]) -> Room:
        # Not by the request's own path: an application may be mounted anywhere, in each of its processes.
        quoted = {name: quote(str(value), safe="") for name, value in parameters.items()}
        return await self.rooms.get(engine, self._template.format_map(quoted), str(parameters[self._parameter]))

    def _engine_of(self, request: Request) -> Engine:
        return self.engine or app_engine(request.app)


rooms_router = RoomsRouter


class _RoomResponse(StreamResponse):
    """Reads a room while its reader is present in it."""

    def __init__(
        self,
        room: Room,
        member: str | None,
        settings: StreamSettings,
        engine: Engine,
        scope: Scope,
        *,
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        """Call `leave` at the end."""
        query = remaining_query(scope)
        link = f'<{quote(address(scope))}{f"?{query}" if query else ""}>; rel="send"'
        super().__init__(room.log, settings, headers={"Link": link}, engine=engine, history=room.history)
        self._room = room
        self._member = member
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with AsyncExitStack() as stack:
                try:
                    with _unless_lost(self._room):
                        member = self._member if _stays(scope) else None
                        await stack.enter_async_context(self._room.present(member))
                except (StoreUnavailable, StreamError) as error:
                    await refusal_of(error)(scope, receive, send)
                else:
                    await super().__call__(scope, receive, send)
        finally:
            await self._leave()


@contextmanager
def _unless_lost(room: Room) -> Iterator[None]:
    """Refuse what cannot be done because the store has lost the room. The next request finds a new one."""
    try:
        yield
    except (LogClosed, LogReset) as error:
        if not room.broken_off:
            raise
        message = "the store has lost the room: send the request again"
        raise StreamError(message, code="entries_lost", status=503) from error


def _stays(scope: Scope) -> bool:
    """Tell whether a reader stays in the room. Those who ask for a document look into it and go."""
    try:
        return scope["method"] == "GET" and choose_wire(Request(scope), WIRES).streaming
    except NotAcceptable:
        return False


def _last_parameter(path: str) -> str:
    names = re.findall(r"\{(\w+)[^}]*\}", path)
    if not names:
        raise ValueError(
            f"expected a path with a parameter for the room's name, such as /rooms/{{room}}, but got {path!r}"
        )
    return cast("str", names[-1])


def _nobody() -> None:
    """Give no member."""


def _checked(member: Any) -> str | None:
    """Return what the dependency gave. A client may have chosen the name, so a bad one is not the server's error."""
    if member is None:
        return None
    if not isinstance(member, str):
        raise TypeError(f"expected a member's name or None, but got {member!r:.80}")
    if not member.isprintable() or not 0 < len(member) <= 128:
        message = f"expected a member's name of 1 to 128 printable characters, but got {member[:80]!r}"
        raise StreamError(message, code="bad_member", status=422)
    return member


def _key_of(request: Request, member: str | None, messages: list[Any]) -> str | None:
    """Return the key of what a request publishes, or None. Other messages, or those of another member, have another."""
    if (key := request.headers.get("idempotency-key")) is None:
        return None
    return hashlib.sha256(to_json([key, member, messages])).hexdigest()


def _host_of(request: Request) -> str:
    return "" if request.client is None else f"\n{request.client.host}"  # no member's name has a line feed


def _messages_in(lines: Sequence[bytes], limits: RoomLimits, *, typed: bool) -> list[Any]:
    if not lines:
        raise BodyRefused("expected a message, but got an empty body", code="bad_message", status=400)
    return [_message_in(line, limits, typed=typed) for line in lines]


def _message_in(line: bytes, limits: RoomLimits, *, typed: bool) -> Any:
    """Return the JSON value of a line. If `typed`, a line that is not JSON is a text, so people can type."""
    _check_size(line, limits)
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        if typed:
            return _text_in(line, limits)
        raise BodyRefused(f"expected JSON, but got {line!r:.80}: {error}", code="bad_message", status=400) from None


def _text_in(line: bytes, limits: RoomLimits) -> str:
    _check_size(line, limits)
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise BodyRefused(f"expected UTF-8, but got {line!r:.80}: {error}", code="bad_message", status=400) from None


def _check_size(line: bytes, limits: RoomLimits) -> None:
    if len(line) > limits.message:
        message = f"expected a message of at most {limits.message} bytes, but got {len(line)}"
        raise BodyRefused(message, code="message_too_large", status=413)


_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A name for the request that no other has. Repeat the request with it if you miss the answer.",
    "schema": {"type": "string"},
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {}, NDJSON.media_type: {}, "text/plain": {}},
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    422: {"description": "No room, or no member, may have this name.", "model": Refusal},
    503: {"description": "Too many rooms or members.", "model": Refusal},
}
_UNACCEPTED: dict[int | str, dict[str, Any]] = {
    413: {"description": "A message or the body is too large.", "model": Refusal},
    415: {"description": "The body is neither JSON, NDJSON nor text.", "model": Refusal},
    429: {"description": "Too many messages. Send them again later.", "model": Refusal},
}

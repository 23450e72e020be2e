"""`packets_router`: the routes of packet sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Unpack

from fastapi import Depends
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..asgi.decision import address
from ..asgi.lifespan import app_engine
from ..asgi.reply import refusal, refusal_of
from ..asgi.response import StreamResponse
from ..asgi.settings import StreamSettings
from ..engine.engine import Engine
from ..errors import StoreUnavailable, StreamError
from ..flow import Flow, Retention
from ..iterators import Job
from ..log.base import Log
from ..packet import NOTICE_TYPES, PacketType, SocketPacket
from ..producer import Producer
from ..routing.body import BodyRefused
from ..routing.endpoints import Principal, describe_http_error
from ..routing.openapi import CURSOR_PARAMETERS, NOT_FOUND, Refusal, stream_response, stream_responses
from ..routing.router import RouterOptions, StreamRouter
from ..wire.base import Wire
from ..wire.ndjson import NDJSON
from ..wire.packets import RESULT, PacketLines
from ..wire.sse import SSE
from . import hooks
from .body import read_packets
from .hooks import Dependency, Hooks
from .inbox import PacketLimits, Parcel, Rules
from .session import ClientSession
from .sessions import Sessions, owner_of

WIRES: tuple[Wire, ...] = (PacketLines(), SSE())

CONNECT_WITHIN = 60.0
"""The seconds that the response's headers wait for the connect hook, so that its HTTPException becomes the status."""

_PRINCIPAL = "tailrace.principal"

_KEY = re.compile(r"[A-Za-z0-9_-]{22,200}")


class Accepted(BaseModel):
    """The packets of a request are in the session's inbox."""

    accepted: int = Field(description="The number of packets.")


class SessionEnd(BaseModel):
    """The end of a session."""

    session_id: str
    state: str = Field(description="`done`, `error` or `cancelled`; `open` if it has not ended within 5 seconds.")
    code: str | None = None
    message: str | None = None


class PacketsRouter(StreamRouter):
    """The routes of packet sessions at one path. Include it in an application like any router.

    `POST path` opens a session with its first packet, and answers with the session's packets. `POST path/{session_id}`
    sends further packets, GET resumes the answer, and DELETE ends the session. A WebSocket at these paths does all of
    it. Each session belongs to the principal that opened it.
    """

    def __init__(
        self,
        path: str = "/stream",
        *,
        on_connect: Dependency | None = None,
        on_packet: Dependency | None = None,
        on_disconnect: Dependency | None = None,
        packet: type[SocketPacket] = SocketPacket,
        packet_types: Collection[str] = (),
        principal: Principal | None = None,
        engine: Engine | None = None,
        limits: PacketLimits | None = None,
        flow: Flow | None = None,
        retention: Retention | None = None,
        grace: float = 10.0,
        origins: Collection[str] = (),
        **options: Unpack[RouterOptions],
    ) -> None:
        """Make a router. `options` are those of APIRouter.

        - `on_connect`, `on_packet`, `on_disconnect`: dependencies that give the hooks. By default, the hooks come from
          the dependencies of these names in `tailrace.packets`, which give none unless your application overrides them.
        - `packet`: the model of the client's packets, such as `SocketPacket[Order]`.
        - `packet_types`: your application's own packet types, besides those of PacketType.
        - `principal`: a dependency that returns the id of the user who sends the request, as a str, int or UUID, or
          None for an anonymous one. Other users cannot reach the session.
        - `engine`: where the sessions live. Default: the application's own engine.
        - `limits`: the bounds for what clients send.
        - `flow`, `retention`: the policy for clients that read slowly, by default `Flow.block()`, and how much of the
          session's packets to keep for resuming.
        - `grace`: how many seconds a session lives while no client reads it.
        - `origins`: the origins whose pages may open a WebSocket, in addition to those of the same host.
        """
        super().__init__(engine=engine, origins=origins, **options)
        self._hooks = {
            name: hooks.Given(default, own) if own is not None else default
            for name, default, own in (
                ("connect", hooks.on_connect, on_connect),
                ("packet", hooks.on_packet, on_packet),
                ("disconnect", hooks.on_disconnect, on_disconnect),
            )
        }
        flow = flow or Flow.block()
        self._identifying = [] if principal is None else [Depends(_identification(principal))]
        rules = Rules(packet, _known_types(packet_types), limits or PacketLimits())
        self._sessions = Sessions(rules, flow)
        self._settings = StreamSettings(
            wires=WIRES,
            flow=flow,
            retention=retention,
            grace=grace,
            status_wait=CONNECT_WITHIN,
            cache_control="no-cache, no-store, no-transform",
            encode=_encode,
            describe=describe_http_error,
        )
        self._add_routes(path)

    @property
    def sessions(self) -> Mapping[str, ClientSession]:
        """The live sessions that this process has opened, by id."""
        return MappingProxyType(self._sessions.live)

    # Routes

    def _add_routes(self, path: str) -> None:
        below = path.rstrip("/") + "/{session_id:tailrace_stream}"
        response = stream_response(WIRES, f"packets {self.prefix}{path}", self._sessions.rules.model)
        opened = {**stream_responses(200, response), **_REFUSED}
        resumed = {**stream_responses(200, response), **NOT_FOUND, 409: _READ}
        body = {"requestBody": _request_body(self._sessions.rules.model)}
        cursors = {"parameters": CURSOR_PARAMETERS}

        add = partial(self._add, dependencies=self._identifying)
        add(path, self._opening(), "POST", "POST, OPTIONS", responses=opened, openapi_extra=body)
        self._add_options(path, "POST, OPTIONS")
        self._add_socket_at(path, "POST")

        allowed = "GET, HEAD, POST, DELETE, OPTIONS"
        resume, send, end = self._resuming(), self._sending(), self._ending()
        accepted = {202: {"model": Accepted}, **NOT_FOUND, **_REFUSED, 410: _ENDED, 429: _FULL}
        ended = {200: {"model": SessionEnd}, 202: {"model": SessionEnd}, **NOT_FOUND}
        add(below, resume, "GET", allowed, responses=resumed, openapi_extra=cursors)
        add(below, resume, "HEAD", allowed, include_in_schema=False)
        add(below, send, "POST", allowed, status_code=202, responses=accepted, openapi_extra=body)
        add(below, end, "DELETE", allowed, responses=ended)
        self._add_options(below, allowed)
        self._add_socket_at(below, "GET")

        add(f"{below}/stop", end, "POST", "POST, OPTIONS", responses=ended, include_in_schema=False)
        self._add_options(f"{below}/stop", "POST, OPTIONS")

    def _opening(self) -> Callable[..., Any]:
        connect, packet, disconnect = (Depends(self._hooks[name]) for name in ("connect", "packet", "disconnect"))

        async def open_session(
            request: Request,
            connect: Any = connect,
            packet: Any = packet,
            disconnect: Any = disconnect,
        ) -> Response:
            """Open a session with its first packet, and read the packets that the server sends."""
            given = Hooks.of(connect, packet, disconnect, self._sessions.threads)
            engine, principal = self._engine_of(request), principal_of(request)
            try:
                _check_no_cursor(request)
                first = await read_packets(request, self._sessions.rules)
                stream_id, fingerprint = await _key(engine, request, owner_of(principal), first)
            except StreamError as error:
                return _refuse(request, error)
            run = partial(self._sessions.run, engine=engine, first=first.lines, hooks=given, principal=principal)
            return self._respond(Job(run), engine, stream_id=stream_id, fingerprint=fingerprint)

        return open_session

    def _resuming(self) -> Callable[..., Any]:
        async def resume_session(request: Request, session_id: str) -> Response:
            """Read a session's packets after a cursor, or from its beginning."""
            engine = self._engine_of(request)
            return self._respond(await self._find(engine, request), engine)

        return resume_session

    def _sending(self) -> Callable[..., Any]:
        async def send_packets(request: Request, session_id: str) -> Response:
            """Send packets into a session: one as JSON, or several as lines of NDJSON. All are accepted, or none."""
            try:
                outbox = await self._find(self._engine_of(request), request)
                parcel = await read_packets(request, self._sessions.rules)
                key = request.headers.get("idempotency-key")
                await self._sessions.accept(self._engine_of(request), outbox, parcel, key)
            except (StreamError, StoreUnavailable) as error:
                return _refuse(request, error)
            return Response(b'{"accepted":%d}' % len(parcel.lines), 202, media_type="application/json")

        return send_packets

    def _ending(self) -> Callable[..., Any]:
        async def end_session(request: Request, session_id: str) -> Response:
            """End a session."""
            engine = self._engine_of(request)
            outbox = await self._find(engine, request)
            outcome = await engine.stop(outbox)
            if outcome is None:
                return JSONResponse({"session_id": outbox.stream, "state": "open"}, 202)
            end = SessionEnd(session_id=outbox.stream, state=outcome.state, code=outcome.code, message=outcome.message)
            return JSONResponse(end.model_dump(exclude_none=True))

        return end_session

    async def _find(self, engine: Engine, request: Request) -> Log:
        """Return the outbox that a request is about. Raise StreamError if its principal has no such session."""
        name = address(request.scope).removesuffix("/stop")
        return await self._sessions.find(engine, name, principal_of(request))

    def _respond(self, source: Log | Job[Producer], engine: Engine, **options: Any) -> StreamResponse:
        return StreamResponse(
            source, self._settings, engine=engine, addressed=True, duplex=True, exclusive=True, **options
        )

    def _engine_of(self, request: Request) -> Engine:
        return self.engine or app_engine(request.app)


packets_router = PacketsRouter


# Packets and their types


def _known_types(own: Collection[str]) -> frozenset[str]:
    for name in own:
        try:
            SocketPacket(packet_type=name)
        except ValidationError:
            expected = "a packet type of up to 64 letters, digits, _, . and - that begins with a letter"
            raise ValueError(f"expected {expected}, but got {name!r:.80}") from None
        if name in NOTICE_TYPES:
            raise ValueError(f"expected packet types of your own, but {name!r} is the name of a notice")
    return frozenset({*PacketType, *own})


def _encode(packet: SocketPacket) -> tuple[str | None, bytes]:
    return RESULT if packet.packet_type == RESULT else None, packet.encode()


def _request_body(packet: type[SocketPacket]) -> dict[str, Any]:
    schema = packet.model_json_schema()
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}, NDJSON.media_type: {"itemSchema": schema}},
    }


# Owners and keys


def _identification(principal: Principal) -> Callable[..., Any]:
    """Return a dependency that notes the principal of a request, for `principal_of`."""

    # Measured: as a parameter of the routes, no principal at all takes 10 of the 140 µs of a request with one packet.
    async def identify(request: Request, principal: Any = Depends(principal)) -> None:
        request.scope[_PRINCIPAL] = principal

    return identify


def principal_of(request: Request) -> Any:
    """Return the principal of a request, or None for an anonymous one."""
    return request.scope.get(_PRINCIPAL)


async def _key(engine: Engine, request: Request, owner: bytes, first: Parcel) -> tuple[str | None, bytes]:
    """Return the id of the session for an Idempotency-Key, and the fingerprint of the owner and the packets."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None, owner
    if owner == owner_of(None) and _KEY.fullmatch(key) is None:
        # Others could guess it, and would share the session.
        message = f"expected an unguessable Idempotency-Key of 22 URL-safe characters or more, but got {key!r:.80}"
        raise StreamError(message, code="weak_idempotency_key", status=400)
    return await engine.derive_id("packets", address(request.scope), owner.hex(), key), owner + first.digest


# Answers


def _check_no_cursor(request: Request) -> None:
    if "last-event-id" in request.headers or "after" in request.query_params:
        message = "expected no cursor, because a session is resumed by GET at its own address"
        raise StreamError(message, code="unexpected_cursor", status=400)


def _refuse(request: Request, error: StreamError | StoreUnavailable) -> Response:
    """Refuse packets. A client that reads only packets, such as a WebSocket, gets an ERROR packet."""
    reply_to, members = None, dict[str, Any]()
    if isinstance(error, BodyRefused):
        reply_to, members = error.reply_to, dict(error.members)
        told = {"retry_after": error.retry_after, **members}
        response = refusal(error.status, error.message, error.code, **told)
    else:
        response = refusal_of(error)
    if request.headers.get("accept") != NDJSON.media_type:
        return response
    code, message = getattr(error, "code", "store_unavailable"), getattr(error, "message", str(error))
    payload = {**members, "status": response.status_code, "code": code, "message": message}
    packet = SocketPacket(packet_type=PacketType.ERROR, payload=payload, reply_to=reply_to)
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(packet.encode() + b"\n", response.status_code, headers, NDJSON.media_type)


_READ: dict[str, Any] = {"description": "Another connection reads the session.", "model": Refusal}
_ENDED: dict[str, Any] = {"description": "The session has ended.", "model": Refusal}
_FULL: dict[str, Any] = {"description": "Too many packets wait for the hooks. Send them again later.", "model": Refusal}
_REFUSED: dict[int | str, dict[str, Any]] = {
    408: {"description": "The body came too slowly.", "model": Refusal},
    413: {"description": "A packet or the body is too large.", "model": Refusal},
    415: {"description": "The body is neither JSON nor NDJSON.", "model": Refusal},
    422: {"description": "A packet is not valid, or has an unknown type.", "model": Refusal},
}

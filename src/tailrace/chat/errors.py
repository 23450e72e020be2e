"""The refusals of the chat server.

Refused
├── Unauthorized       no API key, or an unknown one
├── SessionNotFound    the owner has no such session
├── SessionBusy        the session is already answering
├── TurnNotLast        the turn to replace is not the last one of its session
├── SessionFull        the session has the maximum number of turns
├── TooManySessions    the owner has the maximum number of sessions
├── TooManyStreams     the server is generating the maximum number of replies
├── ShuttingDown       the server accepts no new messages, because it is shutting down
├── StreamNotFound     the owner has no such stream
├── MessageTooLong     the message is too long
├── KeyReused          the idempotency key belongs to another message
├── BodyTooLarge       the body is too large
├── InternalError      an exception was not handled
├── BadPage            no earlier page gave this token
├── StorageFailed      the database cannot be used
└── StreamsUnavailable the store of the streams does not answer

STORE_REFUSALS has the refusal for each error of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from . import store
from .objects import BusyProblem, LastTurnProblem, Problem


class Refused(Exception):
    """A refused request. Its response has `status`, `problem` as the body, and `headers`."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def problem(self) -> Problem:
        return Problem(detail=self.detail, code=self.code)


class Unauthorized(Refused):
    status, code = 401, "unauthorized"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("expected the header Authorization: Bearer with one of the server's API keys")


class SessionNotFound(Refused):
    status, code = 404, "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"expected the id of a session of yours, but got {session_id}")


class SessionBusy(Refused):
    """The session is already answering. `stream_id` is the stream of that reply."""

    status, code = 409, "session_busy"

    def __init__(self, session_id: str, stream_id: str) -> None:
        super().__init__(f"the session is answering: resume, stop or wait for the stream {stream_id}")
        self.session_id = session_id
        self.stream_id = stream_id

    @property
    def problem(self) -> Problem:
        return BusyProblem(detail=self.detail, code=self.code, session_id=self.session_id, stream_id=self.stream_id)


class TurnNotLast(Refused):
    """The turn to replace is not the last one. `last` is the stream of the session's last turn, if there is one."""

    status, code = 409, "turn_not_last"

    def __init__(self, stream_id: str, last: str | None) -> None:
        last_turn = f"the stream of the session's last turn, {last}"
        expected = last_turn if last else "no turn to replace, because the session is empty"
        super().__init__(f"expected {expected}, but got {stream_id[:80]!r}")
        self.last = last

    @property
    def problem(self) -> Problem:
        return LastTurnProblem(detail=self.detail, code=self.code, stream_id=self.last)


class SessionFull(Refused):
    status, code = 409, "session_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the session has {limit} turns, which is the limit: clear it, or begin a new one")


class TooManySessions(Refused):
    status, code = 409, "too_many_sessions"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you have {limit} sessions, which is the limit: delete one first")


class TooManyStreams(Refused):
    status, code = 503, "too_many_streams"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}

    def __init__(self, limit: int) -> None:
        super().__init__(f"the server is generating {limit} replies, which is the limit: try again soon")


class ShuttingDown(Refused):
    status, code = 503, "shutting_down"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class StreamNotFound(Refused):
    status, code = 404, "stream_not_found"

    def __init__(self, stream_id: str) -> None:
        super().__init__(f"expected the id of a stream of yours, but got {stream_id}")


class MessageTooLong(Refused):
    status, code = 413, "message_too_long"

    def __init__(self, limit: int, length: int) -> None:
        super().__init__(f"expected a message of at most {limit} characters, but got {length}")


class KeyReused(Refused):
    status, code = 409, "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("expected the message that this Idempotency-Key was first sent with, but got another one")


class BodyTooLarge(Refused):
    """The body is too large. `got` is its size, or the number of bytes that were read."""

    status, code = 413, "body_too_large"

    def __init__(self, limit: int, got: int, *, whole: bool = True) -> None:
        at_least = "" if whole else "at least "
        super().__init__(f"expected a body of at most {limit} bytes, but got {at_least}{got}")


class InternalError(Refused):
    status, code = 500, "internal_error"

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class BadPage(Refused):
    status, code = 404, "bad_page"

    def __init__(self, token: str) -> None:
        super().__init__(f"expected a token from an earlier page, but got {token[:80]!r}")


class StorageFailed(Refused):
    status, code = 503, "storage_failed"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("the database cannot be used now: try again later")


class StreamsUnavailable(Refused):
    status, code = 503, "streams_unavailable"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}

    def __init__(self) -> None:
        super().__init__("the streams cannot be used now: try again later")


STORE_REFUSALS: dict[type[Exception], Callable[[Any], Refused]] = {
    store.SessionNotFound: lambda error: SessionNotFound(error.session_id),
    store.SessionRunning: lambda error: SessionBusy(error.session_id, error.stream_id),
    store.TurnNotLast: lambda error: TurnNotLast(error.stream_id, error.last),
    store.SessionFull: lambda error: SessionFull(error.limit),
    store.SessionLimit: lambda error: TooManySessions(error.limit),
    store.BadToken: lambda error: BadPage(error.token),
    store.StoreError: lambda error: StorageFailed(),
}


def refusal_of(error: Exception) -> Refused:
    """Return the refusal for an error of the store."""
    kind = next(kind for kind in STORE_REFUSALS if isinstance(error, kind))
    return STORE_REFUSALS[kind](error)


def refusals(*kinds: type[Refused]) -> dict[int | str, dict[str, Any]]:
    """Describe refusals in the OpenAPI document: the value of FastAPI's `responses`."""
    said: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        line = kind.code.replace("_", " ")
        if kind.status in said:
            said[kind.status]["description"] += f", or {line}"
            said[kind.status]["model"] |= _BODIES.get(kind, Problem)
        else:
            said[kind.status] = {"model": _BODIES.get(kind, Problem), "description": line}
    return said


_BODIES: dict[type[Refused], type[Problem]] = {SessionBusy: BusyProblem, TurnNotLast: LastTurnProblem}

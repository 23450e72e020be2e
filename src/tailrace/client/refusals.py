"""Answers that are no stream, and requests beside streams."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from .backoff import Backoff, Spent, read_retry_after
from .commands import Close, Failed, Flow, Open, Opened, Read, Sleep
from .deadline import Deadline, Overdue
from .errors import StreamRefused, Unreachable, redirection, refusal
from .settings import Retry

UNAVAILABLE = frozenset({429, 502, 503, 504})
"""Statuses that say: try again."""
NOT_DEALT_WITH = frozenset({429, 503})
"""Those that say also that the request has started nothing."""

MAX_REFUSAL = 1 << 16
MAX_ANSWER = 64 << 20
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def read_body(limit: int, deadline: Deadline) -> Flow[bytes | Failed]:
    """The body of a response, up to about `limit` bytes of it."""
    body = bytearray()
    while len(body) < limit:
        if (left := deadline.left) == 0:
            return Failed("the answer has not ended in time")
        reply = yield Read(left)
        if isinstance(reply, Failed):
            return reply
        if not isinstance(reply, bytes):
            break
        body += reply
    return bytes(body)


def read_refusal(head: Opened, deadline: Deadline) -> Flow[StreamRefused]:
    """The error that an answer is; of one that broke off the status says enough."""
    if 300 <= head.status < 400 and (location := head.headers.get("location")):
        return redirection(head.status, location)
    body = yield from read_body(MAX_REFUSAL, deadline)
    error = refusal(head.status, b"" if isinstance(body, Failed) else body)
    if (allow := head.headers.get("allow")) is not None:
        error.members.setdefault("allow", allow)
    return error


def ask(
    request: Open, retry: Retry, *, repeatable: bool, accepted: Collection[int] = (), total: float | None = None
) -> Flow[Answer]:
    """One request and its answer; StreamRefused for what is no success and not `accepted`, Unreachable for none.

    Only what is `repeatable` is sent again where it may have arrived. `total` bounds all of it, in seconds.
    """
    backoff, deadline = Backoff(retry), Deadline(total)
    try:
        while True:
            outcome = yield from _ask_once(_bounded(request, deadline), deadline, repeatable, accepted)
            yield Close()
            if isinstance(outcome, Answer):
                return outcome
            reason, at_least = outcome
            try:
                delay = backoff.fail(at_least=at_least)
            except Spent as spent:
                raise Unreachable(f"{reason}{spent}", backoff.failures) from None
            yield Sleep(deadline.within(delay))
    except Overdue as overdue:
        raise Unreachable(str(overdue), backoff.failures) from None


def _bounded(request: Open, deadline: Deadline) -> Open:
    connect, idle = deadline.within(request.connect), deadline.within(request.idle)
    return replace(request, connect=connect, idle=idle, within=deadline.left)


def _ask_once(
    request: Open, deadline: Deadline, repeatable: bool, accepted: Collection[int]
) -> Flow[Answer | tuple[str, float]]:
    """The answer, or why there is none yet and how many seconds to wait at least."""
    head = yield request
    if isinstance(head, Failed):
        if head.final:
            raise Unreachable(head.reason, 1)
        if head.sent and not repeatable:
            raise Unreachable(f"{head.reason}; it is unknown whether the request has arrived", 1)
        return head.reason, 0.0
    assert isinstance(head, Opened), head
    if head.status < 300 or head.status in accepted:
        body = yield from read_body(MAX_ANSWER, deadline)
        if not isinstance(body, Failed):
            return Answer(head.status, body)
        if not repeatable:
            raise Unreachable(f"{body.reason}; the request has arrived", 1)
        return body.reason, 0.0
    error = yield from read_refusal(head, deadline)
    retry_after = read_retry_after(head.headers.get("retry-after"))
    if head.status in UNAVAILABLE and (repeatable or (head.status in NOT_DEALT_WITH and retry_after is not None)):
        return str(error), retry_after or 0.0
    raise error

"""Answers that are no stream, and requests beside streams."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .backoff import Backoff, Spent, read_retry_after
from .commands import Close, Failed, Flow, Open, Opened, Read, Sleep
from .errors import StreamRefused, Unreachable, refusal
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


def read_body(limit: int) -> Flow[bytes | Failed]:
    """The body of a response, up to about `limit` bytes of it."""
    body = bytearray()
    while len(body) < limit:
        reply = yield Read()
        if isinstance(reply, Failed):
            return reply
        if not isinstance(reply, bytes):
            break
        body += reply
    return bytes(body)


def read_refusal(head: Opened) -> Flow[StreamRefused]:
    """The error that an answer is; of one that broke off the status says enough."""
    body = yield from read_body(MAX_REFUSAL)
    return refusal(head.status, b"" if isinstance(body, Failed) else body)


def ask(request: Open, retry: Retry, *, repeatable: bool, accepted: Collection[int] = ()) -> Flow[Answer]:
    """One request and its answer; StreamRefused for what is no success and not `accepted`, Unreachable for none.

    Only what is `repeatable` is sent again where it may have arrived.
    """
    backoff = Backoff(retry)
    while True:
        outcome = yield from _ask_once(request, repeatable=repeatable, accepted=accepted)
        yield Close()
        if isinstance(outcome, Answer):
            return outcome
        reason, at_least = outcome
        try:
            delay = backoff.fail(at_least=at_least)
        except Spent:
            raise Unreachable(reason, backoff.failures) from None
        yield Sleep(delay)


def _ask_once(request: Open, *, repeatable: bool, accepted: Collection[int]) -> Flow[Answer | tuple[str, float]]:
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
        body = yield from read_body(MAX_ANSWER)
        if not isinstance(body, Failed):
            return Answer(head.status, body)
        if not repeatable:
            raise Unreachable(f"{body.reason}; the request has arrived", 1)
        return body.reason, 0.0
    error = yield from read_refusal(head)
    retry_after = read_retry_after(head.headers.get("retry-after"))
    if head.status in UNAVAILABLE and (repeatable or (head.status in NOT_DEALT_WITH and retry_after is not None)):
        return str(error), retry_after or 0.0
    raise error

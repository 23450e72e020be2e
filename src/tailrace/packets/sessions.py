"""The sessions of a router, in this process and in others."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from pydantic_core import to_json

from ..engine.engine import Engine
from ..errors import LogClosed, StoreUnavailable, StreamError
from ..events import Outcome
from ..flow import Flow
from ..log.base import Log
from ..producer import Producer
from ..routing.body import BodyRefused
from ..routing.endpoints import principal_name
from .hooks import Hooks
from .inbox import Inbox, Parcel, Rules, is_full
from .kept import Kept, Share
from .session import ClientSession

logger = logging.getLogger("tailrace")

REMEMBERED = 10_000
"""The number of sessions whose last packets are remembered."""

HOOK_THREADS = 200
"""How many sync hooks run at once. They do not take the threads of FastAPI's `def` routes, which may be few."""


@dataclass(slots=True)
class Sessions:
    """Runs the sessions that this process has opened, and finds those of all processes.

    `rules` are for the packets of clients, and `flow` is the policy for clients that read slowly.
    """

    rules: Rules
    flow: Flow
    live: dict[str, ClientSession] = field(default_factory=dict)
    threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, HOOK_THREADS))
    _kept: Kept = field(init=False)
    _adding: Counter[str] = field(default_factory=Counter)  # how many packets are being appended, by session
    _last: OrderedDict[str, bytes] = field(default_factory=OrderedDict)  # a digest of the last packets, by session

    def __post_init__(self) -> None:
        self._kept = Kept(self.rules.limits.kept_bytes)

    async def run(
        self, producer: Producer, *, engine: Engine, first: Sequence[bytes], hooks: Hooks, principal: Any
    ) -> None:
        """Run a session to its end, in the task of its outbox's producer. `first` are its first packets as JSON."""
        rules = self.rules
        if len(self.live) >= rules.limits.sessions:
            message = f"expected fewer than {rules.limits.sessions} sessions in this process, but there are as many"
            raise StreamError(message, code="too_many_sessions", status=503)
        if (kept := self._kept).full:
            message = f"expected sessions that keep less than {kept.most} bytes together, but they keep {kept.size}"
            raise StreamError(message, code="sessions_full", status=503)
        retention = rules.limits.retention(shared=engine.store.shared)
        log = await engine.log(_inbox_name(producer.log), retention=retention)
        try:
            await log.add([(None, line) for line in first])
            inbox = Inbox(log, rules, Share(kept, engine.pulse, log, producer.log), reports=engine.store.shared)
            session = ClientSession(producer, inbox, hooks, rules=rules, principal=principal, flow=self.flow)
            with inbox.tail, inbox.share:
                self.live[session.id] = session
                try:
                    await session.run()
                finally:
                    del self.live[session.id]
        finally:
            await _discard(engine, log)

    async def find(self, engine: Engine, name: str, principal: Any) -> Log:
        """Return the outbox with a name. Raise StreamError if there is none, or it is another principal's."""
        path, _, session_id = name.rpartition("/")
        outbox = await engine.find_stream(path, session_id)
        if outbox is None or not outbox.fingerprint.startswith(owner_of(principal)):
            message = f"expected the id of one of your sessions, but got {session_id!r}"
            raise StreamError(message, code="session_not_found", status=404)
        return outbox

    async def accept(self, engine: Engine, outbox: Log, parcel: Parcel, key: str | None = None) -> None:
        """Append packets to a session's inbox. Raise BodyRefused if it is full, or the session has ended.

        `key` names the request: the same packets with the same key are appended once, even those without ids.

        Of a session that has ended, accept the last packets once more: the client that repeats them missed the answer.
        """
        session = self.live.get(outbox.stream)
        inbox = None if session is None else session.inbox
        log = await engine.find(_inbox_name(outbox)) if inbox is None else inbox.log
        if outbox.outcome is not None or log is None or (session is not None and session.dead):
            if self._are_last(outbox, parcel):
                return
            raise self._ended(outbox, parcel)
        self._require_room(outbox, log, inbox, parcel)
        digest = parcel.digest
        self._adding[outbox.stream] += len(parcel.lines)
        try:
            name = None if key is None else hashlib.sha256(key.encode() + digest).hexdigest()
            await (log.add(parcel.rows, key=name) if inbox is None else inbox.add(parcel, key=name))
        except LogClosed:
            raise self._ended(outbox, parcel) from None
        finally:
            self._adding[outbox.stream] -= len(parcel.lines)
            if not self._adding[outbox.stream]:
                del self._adding[outbox.stream]
        self._remember(outbox, digest)

    def _require_room(self, outbox: Log, log: Log, inbox: Inbox | None, parcel: Parcel) -> None:
        """Raise BodyRefused if the inbox is full, or all sessions keep too much. `inbox` is its end in this process."""
        if is_full(log, None if inbox is None else inbox.taken, self._adding[outbox.stream], self.rules.limits):
            message = (
                "expected a session with room for packets, but its hooks are behind, perhaps because the client does "
                "not read: send them again later"
            )
            raise BodyRefused(message, code="too_many_packets", status=429, reply_to=self._only_id(parcel))
        if inbox is not None and not inbox.share.has_room_for(size := sum(map(len, parcel.lines))):
            message = (
                f"expected sessions that keep at most {self._kept.most} bytes together, but with these packets they "
                f"would keep {self._kept.size + size}, and this one more than its share: send them again later"
            )
            raise BodyRefused(message, code="sessions_full", status=503, reply_to=self._only_id(parcel))

    def _remember(self, outbox: Log, digest: bytes) -> None:
        self._last[outbox.stream] = digest
        self._last.move_to_end(outbox.stream)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)

    def _are_last(self, outbox: Log, parcel: Parcel) -> bool:
        """Tell whether these packets were the last ones of a session here. Without ids, they may be others."""
        same = self._last.get(outbox.stream) == parcel.digest
        return same and all(self.rules.model.decode(line).id is not None for line in parcel.lines)

    def _ended(self, outbox: Log, parcel: Parcel) -> BodyRefused:
        outcome = outbox.outcome or Outcome("cancelled")
        return BodyRefused(
            f"expected a live session, but it has ended as {outcome.state!r}",
            code="session_ended",
            status=410,
            reply_to=self._only_id(parcel),
            members={"state": outcome.state, "outcome_code": outcome.code, "message": outcome.message},
        )

    def _only_id(self, parcel: Parcel) -> str | None:
        return self.rules.model.decode(parcel.lines[0]).id if len(parcel.lines) == 1 else None


def owner_of(principal: Any) -> bytes:
    """Return 16 bytes that tell a principal from others. The fingerprints of its sessions begin with them."""
    name = () if principal is None else principal_name(principal)
    return hashlib.sha256(to_json(name)).digest()[:16]


def _inbox_name(outbox: Log) -> str:
    # A repeated opening may make an outbox of the same name once more, but not of the same epoch.
    return f"{outbox.name}/inbox/{outbox.epoch}"


async def _discard(engine: Engine, inbox: Log) -> None:
    try:
        await inbox.close()
        await engine.forget(inbox)
    except StoreUnavailable as error:  # the store forgets it when it was idle for long enough
        logger.warning("log %s could not be forgotten: %s", inbox.name, error)

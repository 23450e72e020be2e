"""The sessions of a router, in this process and in others."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from ..engine.engine import Engine
from ..errors import LogClosed, StoreUnavailable, StreamError
from ..flow import Flow
from ..log.base import Log
from ..producer import Producer
from ..routing.endpoints import principal_name
from .body import PacketRefused
from .hooks import Hooks
from .inbox import Inbox, Rules, ends_with, is_full
from .session import ClientSession

logger = logging.getLogger("tailrace")

REPEATED_WITHIN = 60.0
"""Seconds after the end of a session in which a client may repeat its last packets."""


@dataclass(slots=True)
class Sessions:
    """Runs the sessions that this process has opened, and finds those of all processes.

    `rules` are for the packets of clients, and `flow` is the policy for clients that read slowly.
    """

    rules: Rules
    flow: Flow
    live: dict[str, ClientSession] = field(default_factory=dict)

    async def run(
        self, producer: Producer, *, engine: Engine, first: Sequence[bytes], hooks: Hooks, principal: Any
    ) -> None:
        """Run a session to its end, in the task of its outbox's producer. `first` are its first packets as JSON."""
        rules = self.rules
        if len(self.live) >= rules.limits.sessions:
            message = f"expected fewer than {rules.limits.sessions} sessions in this process, but there are as many"
            raise StreamError(message, code="too_many_sessions", status=503)
        log = await engine.log(_inbox_name(producer.log), retention=rules.limits.retention)
        try:
            await log.add([(None, line) for line in first])
            inbox = Inbox(log, rules, reports=engine.store.shared)
            session = ClientSession(producer, inbox, hooks, types=rules.types, principal=principal, flow=self.flow)
            with inbox.tail:
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

    async def accept(self, engine: Engine, outbox: Log, lines: Sequence[bytes]) -> None:
        """Append packets as JSON to a session's inbox. Raise PacketRefused if it is full, or the session has ended.

        Of a session that has ended, accept the last packets once more: the client that repeats them missed the answer.
        """
        session = self.live.get(outbox.stream)
        inbox = await engine.find(_inbox_name(outbox)) if session is None else session.inbox.log
        if outbox.outcome is not None and inbox is not None and ends_with(inbox, lines, self.rules):
            return
        if inbox is None or outbox.outcome is not None:
            raise _ended(outbox)
        if is_full(inbox, None if session is None else session.inbox.taken, self.rules.limits):
            message = "expected a session with room for packets, but its hooks are behind: send them again later"
            raise PacketRefused(message, code="too_many_packets", status=429)
        try:
            await inbox.add([(None, line) for line in lines])
        except LogClosed:
            raise _ended(outbox) from None


def owner_of(principal: Any) -> bytes:
    """Return 16 bytes that tell a principal from others. The fingerprints of its sessions begin with them."""
    name = () if principal is None else principal_name(principal)
    return hashlib.sha256(to_json(name)).digest()[:16]


def _inbox_name(outbox: Log) -> str:
    return f"{outbox.name}/inbox"


async def _discard(engine: Engine, inbox: Log) -> None:
    try:
        await inbox.close()
        await engine.forget(inbox, within=REPEATED_WITHIN)
    except StoreUnavailable as error:  # the store forgets it when it was idle for long enough
        logger.warning("log %s could not be forgotten: %s", inbox.name, error)


def _ended(outbox: Log) -> PacketRefused:
    end = "" if outbox.outcome is None else f" as {outbox.outcome.state!r}"
    return PacketRefused(f"expected a live session, but it has ended{end}", code="session_ended", status=410)

"""The contract suite and the tests of faults fail if the Redis store lacks one of its protections.

Each protection is switched off by itself, in the test's process. The store then fails the tests named beside it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from tailrace.errors import LogReset
from tailrace.events import Entries
from tailrace.log.base import BATCH_BYTES
from tailrace.log.redis import log, mirror, scripts, store
from tailrace.log.redis.columns import Columns
from tailrace.log.redis.frames import Batch
from tailrace.log.redis.link import Script
from tailrace.log.redis.loaded import Loaded
from tailrace.log.redis.log import RedisLog
from tailrace.log.redis.mirror import Mirror
from tailrace.log.redis.mirrors import Mirrors
from tailrace.log.redis.store import Pace
from tests.reliability import oracle, test_connections, test_servers
from tests.reliability.clock import Clock

from . import test_contract
from .redis_server import RedisServer

Mutation: TypeAlias = Callable[[pytest.MonkeyPatch], None]


class Contract(test_contract.TestRedisStore):
    """The contract without anything that mends what went wrong: neither rounds nor new connections."""

    limit = 2.0
    pace = Pace(interval=60)

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    @asynccontextmanager
    async def rollback(self) -> AsyncIterator[None]:
        kept = {key: self.server.ask("DUMP", key) for key in self.server.ask("KEYS", "*")}
        yield
        for key, dump in kept.items():
            self.server.ask("RESTORE", key, 0, dump, "REPLACE")


def without(name: str, check: str, module: object) -> Mutation:
    """Take a check out of a script that a module runs."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        source: str = getattr(scripts, name).source
        assert source.count(f"if {check} then") == 1
        patch.setattr(module, name, Script(source.replace(f"if {check} then", "if false then")))

    return mutate


def take_as_next(log: RedisLog, batch: Batch) -> None:
    """Take a batch where the mirror stands, whatever its offsets say."""
    log._take(batch._replace(top=log.top + len(batch.json)))


def receive_by(patch: pytest.MonkeyPatch, receive: Callable[[RedisLog, Batch], None]) -> None:
    """Let logs take batches in another way, both published ones and those of replies."""
    patch.setattr(RedisLog, "_receive_batch", receive)
    patch.setitem(mirror._RECEIVE, Batch, receive)


def without_dedupe(patch: pytest.MonkeyPatch) -> None:
    receive = RedisLog._receive_batch

    def receive_again(self: RedisLog, batch: Batch) -> None:
        known = batch.top <= self.top
        take_as_next(self, batch) if known else receive(self, batch)

    receive_by(patch, receive_again)


def without_contiguity(patch: pytest.MonkeyPatch) -> None:
    receive = RedisLog._receive_batch

    def receive_after_gap(self: RedisLog, batch: Batch) -> None:
        gap = batch.start > self.top
        take_as_next(self, batch) if gap else receive(self, batch)

    receive_by(patch, receive_after_gap)


def without_tags(patch: pytest.MonkeyPatch) -> None:
    async def has_tag(self: RedisLog, offset: int, tag: str) -> bool:
        return True

    patch.setattr(RedisLog, "has_tag", has_tag)


def without_tags_of_mirrors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Loaded, "continues", lambda *_: True)
    follows = Columns.follows
    patch.setattr(Columns, "follows", lambda self, batch: follows(self, batch._replace(prev=self.tag)))


def without_check_of_history(patch: pytest.MonkeyPatch) -> None:
    async def read(self: RedisLog, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        while (entries := self.read_nowait(after, limit, size)) is None:
            if batches := await self._fetch(after, 4):
                return Columns.of(batches).slice(max(after, batches[0].start), limit, size)
        return entries

    patch.setattr(RedisLog, "read", read)


def history_before_subscription(patch: pytest.MonkeyPatch) -> None:
    attach, subscribe = Mirrors.attach, Mirrors._subscribe

    async def attach_first(self: Mirrors, log: Mirror) -> None:
        lacking = log.channels[log.hears : log.needs]
        await attach(self, log)
        await asyncio.sleep(0.005)  # as much as the way to a server that is further away
        await subscribe(self, log.name, lacking)

    async def subscribe_later(self: Mirrors, name: str, channels: Sequence[bytes]) -> None:
        await self.servers.ready("", 1)

    patch.setattr(Mirrors, "attach", attach_first)
    patch.setattr(Mirrors, "_subscribe", subscribe_later)
    patch.setattr(Mirrors, "renew", lambda self: None)  # it would heal this


MUTATIONS: list[tuple[str, Mutation, list[str]]] = [
    (
        "the dedupe of batches",
        without_dedupe,
        ["history_then_live_has_no_gap_and_no_duplicate"],
    ),
    (
        "the dedupe of repeated appends",
        without("APPEND", "known ~= ''", log),
        ["an_append_whose_answer_is_lost_is_made_once"],
    ),
    (
        "the contiguity",
        without_contiguity,
        ["a_reader_whose_connection_was_lost_misses_nothing"],
    ),
    (
        "the fence",
        without("APPEND", "fence ~= (m[3] ~= '' and m[4] or '')", log),
        [
            "a_stream_belongs_to_its_writer",
            "a_log_without_a_writer_belongs_to_nobody",
            "a_writer_that_lost_its_lease_writes_nothing_more",
        ],
    ),
    (
        "the tags of keys",
        without("APPEND", "first", log),
        ["an_append_with_a_key_is_made_once", "of_appends_with_one_key_at_once_one_is_made"],
    ),
    (
        "the lease",
        without("LEASE", "m[3] ~= '' and m[3] ~= ARGV[2]", store),
        ["a_stream_belongs_to_its_writer", "of_two_leases_at_once_one_is_given"],
    ),
    (
        "the tag that a writer expects",
        without("APPEND", "expected ~= '' and expected ~= m[6]", log),
        ["a_writer_does_not_continue_behind_lost_entries"],
    ),
    (
        "the tag of a cursor",
        without_tags,
        ["a_cursor_with_a_wrong_tag_is_reset", "a_cursor_of_a_lost_entry_is_reset"],
    ),
    (
        "the check of history that may be trimmed",
        without_check_of_history,
        ["a_reader_of_a_large_history_that_is_trimmed_misses_nothing_unnoticed"],
    ),
    (
        "the order of subscription and history",
        history_before_subscription,
        ["an_event_that_comes_during_an_attach_arrives"],
    ),
]


@pytest.mark.parametrize(
    ("mutate", "test"),
    [pytest.param(mutate, test, id=f"{name}: {test}") for name, mutate, tests in MUTATIONS for test in tests],
)
async def test_the_suite_fails_without(
    mutate: Mutation, test: str, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    check: Callable[[], Awaitable[None]] = getattr(Contract(redis), f"test_{test}")
    mutate(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError, LogReset, ExceptionGroup)):
        await check()


@pytest.mark.parametrize("test", sorted({test for _, _, tests in MUTATIONS for test in tests}))
async def test_the_suite_passes_with_all_of_them(test: str, redis: RedisServer) -> None:
    contract = Contract(redis)
    contract.limit = test_contract.TestRedisStore.limit  # nothing here has to run into it
    check: Callable[[], Awaitable[None]] = getattr(contract, f"test_{test}")
    await check()


FAULTS: list[tuple[str, Mutation, Callable[..., Awaitable[None]]]] = [
    ("the dedupe of batches", without_dedupe, test_connections.test_a_subscription_is_late),
    ("the contiguity", without_contiguity, test_connections.test_a_message_before_others_is_lost),
    ("the tag of a cursor", without_tags, test_servers.test_a_replica_without_the_last_writes_is_promoted),
    ("the tags of a mirror", without_tags_of_mirrors, test_servers.test_a_replica_without_the_last_writes_is_promoted),
]


@pytest.mark.parametrize(("mutate", "test"), [pytest.param(*rest, id=name) for name, *rest in FAULTS])
async def test_the_oracle_notices_the_lack_of(
    mutate: Mutation, test: Callable[..., Awaitable[None]], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    monkeypatch.setattr(oracle, "LIMIT", 5.0)
    fixtures = {"server": redis, "clock": Clock()}
    asked = inspect.signature(test).parameters
    with pytest.raises((AssertionError, ExceptionGroup)):
        await test(**{name: fixture for name, fixture in fixtures.items() if name in asked})

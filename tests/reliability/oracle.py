"""The oracle of the fault tests: what was published, what each client got, and whether the two agree.

A client's sequence is made of runs. A run ends with a reset or with the log, and a client that only comes back with its
cursor continues its run. The sequence is right if each run is a contiguous run of the true log. If the store has lost
the end of the run, the client must have been told so by a reset: a silent loss is a failure, and so is a duplicate.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from tailrace.log.redis.scripts import Keys
from tests.log.redis.redis_server import RedisServer

LIMIT = 30.0
"""Seconds in which each fault must be noticed, and repaired after its end."""

RESETS = frozenset({"ahead", "diverged", "epoch_changed", "trimmed"})


Told: TypeAlias = Callable[[str], object]
"""A function to call with what a client is told."""


class Item(NamedTuple):
    """An item of a log. Each publisher numbers its own from 1."""

    publisher: str
    number: int


class Changes:
    """Lets tasks wait for what the clients and publishers of a scene live through."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def tell(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds. It is checked after each change."""
        try:
            async with asyncio.timeout(LIMIT):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"expected {what} within {LIMIT} s") from None


class Published:
    """What the publishers of a log know: when each item was begun, and the places where items were stored.

    If a log has a `sole` writer, the number of an item is its offset.
    """

    def __init__(self, name: str, *, sole: bool = False) -> None:
        self.name = name
        self.sole = sole
        self.begun: dict[Item, float] = {}
        self.places: dict[Item, set[tuple[str, int]]] = {}
        self.unsure: set[Item] = set()  # those of which an answer was lost: they may be at another place, or nowhere

    def begin(self, item: Item, at: float | None = None) -> None:
        """Note when an item was made, by default now. All processes of a machine have one monotonic clock."""
        self.begun.setdefault(item, time.monotonic() if at is None else at)

    def store(self, item: Item, epoch: str, offset: int) -> None:
        self.places.setdefault(item, set()).add((epoch, offset))

    def may_be(self, item: Item, epoch: str, offset: int) -> bool:
        """Tell whether a client may have got an item at a place."""
        places = self.places.get(item)
        known = not places or (epoch, offset) in places or item in self.unsure
        return item in self.begun and known and (not self.sole or item.number == offset)


@dataclass
class Run:
    """What a client got from one epoch of a log without a reset. `end` is the reason why there is no more."""

    epoch: str
    items: list[tuple[int, Item]] = field(default_factory=list)
    end: str = ""


class Client:
    """What one reader of a log got. Subclasses read, and come back with their cursor whenever they have lost it."""

    def __init__(self, published: Published, changes: Changes, told: Told) -> None:
        """`told` is called with each reset and each failure that the client is told of."""
        self.published = published
        self.runs: list[Run] = []
        self.resets: list[str] = []  # their reasons
        self.freshest = 0.0  # when the newest of its items was begun
        self.ended = ""  # the outcome, or "gone"
        self.cursor: str | None = None
        self.degraded = False
        self._changes = changes
        self._told = told

    async def follow(self) -> None:
        """Read until the log ends, or is gone."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """The number of items in its newest run."""
        return len(self.runs[-1].items) if self.runs else 0

    def take(self, epoch: str, items: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """Note items that the client got, with their offsets."""
        run = self.runs[-1] if self.runs else None
        if run is None or run.end or run.epoch != epoch:
            self.runs.append(run := Run(epoch))
        for offset, (publisher, number, *rest) in items:
            item = Item(publisher, number)
            if rest and isinstance(rest[0], float):  # made elsewhere
                self.published.begin(item, rest[0])
            run.items.append((offset, item))
            self.freshest = max(self.freshest, self.published.begun.get(item, 0.0))
        self._changes.tell()

    def reset(self, reason: str) -> None:
        """Note that the client was told to begin again."""
        self.resets.append(reason)
        self._break(reason)
        self._told(f"reset {reason}")

    def degrade(self, degraded: bool) -> None:
        """Note whether the process of the client cannot reach Redis."""
        if degraded != self.degraded:
            self.degraded = degraded
            self._told("degraded" if degraded else "up to date")
            self._changes.tell()

    def finish(self, outcome: str) -> None:
        """Note that the client has the end, or that there is no such log any more."""
        self.ended = outcome
        self._break(outcome)
        if outcome != "done":
            self._told(outcome)
        self._changes.tell()

    def _break(self, reason: str) -> None:
        if self.runs and not self.runs[-1].end:
            self.runs[-1].end = reason


@dataclass
class Stored:
    """What the server has of a log, read without the code that is tested. The epoch is empty if there is none."""

    epoch: str
    base: int
    top: int
    entries: dict[int, Item]

    @classmethod
    def of(cls, server: RedisServer, name: str) -> Stored:
        keys = Keys.of("tailrace", name)
        epoch, top = server.ask("HMGET", keys.meta, "epoch", "top")
        entries: dict[int, Item] = {}
        for _, fields in server.ask("XRANGE", keys.log, "-", "+") if epoch else ():
            head, *rows = fields[b"f"].split(b"\n")
            last, count = map(int, head.split(b" ")[2:4])
            for offset, row in zip(range(last - count + 1, last + 1), rows, strict=True):
                assert offset not in entries, f"expected one entry at {offset}"
                publisher, number, *_ = json.loads(row)
                entries[offset] = Item(publisher, number)
        base = min(entries, default=int(top or 0) + 1) - 1  # not that of the meta: the entries may have been evicted
        return cls((epoch or b"").decode(), base, int(top or 0), entries)


def judge(published: Published, clients: Sequence[Client], stored: Stored, *, may_lose: bool = False) -> None:
    """Check the true log, and each client's sequence against it. `may_lose`: whether the store may have lost items."""
    _judge_log(published, stored, may_lose=may_lose)
    for client in clients:
        for run in client.runs:
            _judge_run(run, published, stored)
        if client.ended == "done" and (offsets := [offset for offset, _ in client.runs[-1].items]):
            assert (client.runs[-1].epoch, offsets[-1]) == (stored.epoch, stored.top), "expected the whole log"


def _judge_log(published: Published, stored: Stored, *, may_lose: bool) -> None:
    assert list(stored.entries) == list(range(stored.base + 1, stored.top + 1)), "expected a log without holes"
    items = list(stored.entries.values())
    assert len(set(items)) == len(items), f"expected each item once in {published.name}"
    for publisher in {item.publisher for item in items}:
        numbers = [item.number for item in items if item.publisher == publisher]
        assert numbers == sorted(numbers), f"expected the items of {publisher} in their order"
    for offset, item in stored.entries.items():
        assert published.may_be(item, stored.epoch, offset), f"expected something else than {item} at {offset}"
    lost = [item for item, places in published.places.items() if not _is_kept(item, places, stored)]
    assert may_lose or not lost, f"expected every item that was stored, but {lost} are missing"


def _is_kept(item: Item, places: set[tuple[str, int]], stored: Stored) -> bool:
    return any(
        epoch == stored.epoch and (offset <= stored.base or stored.entries.get(offset) == item)
        for epoch, offset in places
    )


def _judge_run(run: Run, published: Published, stored: Stored) -> None:
    offsets = [offset for offset, _ in run.items]
    gaps = [pair for pair in pairwise(offsets) if pair[1] != pair[0] + 1]
    assert not gaps, f"expected contiguous offsets, but got {gaps}"
    assert len({item for _, item in run.items}) == len(run.items), "expected each item once"
    for offset, item in run.items:
        assert published.may_be(item, run.epoch, offset), f"expected something else than {item} at {offset}"
    whole = run.epoch != stored.epoch or stored.base > 0 or offsets[0] == 1
    assert whole, f"expected a log from its beginning, but got it from {offsets[0]}"
    left = run.epoch != stored.epoch
    for offset, item in run.items:
        kept = stored.entries.get(offset, item if offset <= stored.base else None) == item
        assert not (left and kept and run.epoch == stored.epoch), f"expected a reset before {item} at {offset}"
        left = left or not kept
    assert not left or run.end in RESETS, f"expected a reset after what was lost, but got {run.end or 'nothing'}"

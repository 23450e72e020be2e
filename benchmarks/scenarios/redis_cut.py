"""What a reader loses whose connection to Redis is cut, or who goes away and comes back."""

import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.client import Undelivered
from benchmarks.clients.relaying import ABSENCE
from benchmarks.peers import BROADCASTER, REDIS_PY, RESUMABLE_STREAM, SOCKETIO_REDIS, TAILRACE_BUS, Peer
from benchmarks.redis import redis_server
from benchmarks.relay import program
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.redis_deliver import PACE

BETWEEN = 0.3
"""Seconds from one cut to the next."""
GRACE = 2.0
"""Seconds after the last event in which others may still come."""


@dataclass(frozen=True)
class Load:
    cuts: int
    absences: int

    @property
    def events(self) -> int:
        return round((self.cuts + self.absences + 2) * BETWEEN / PACE)


FULL = Load(cuts=4, absences=3)
QUICK = Load(cuts=1, absences=1)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with (
        redis_server() as redis,
        program(redis, peer, "pace", load.events, PACE, beside_redis=True) as publisher,
        program(redis, peer, "receive", load.events) as receiver,
    ):
        publisher.wait_ready()
        receiver.wait_ready()
        publisher.tell("begin")
        cuts = 0
        for _ in range(load.cuts):
            time.sleep(BETWEEN)
            cuts += redis.cut(receiver.ports()) > 0
        time.sleep(BETWEEN)
        between = time.perf_counter()
        for _ in range(load.absences):
            receiver.tell("away")
            time.sleep(BETWEEN)
        sent = publisher.sample()["sent"]
        if not receiver.speaks(GRACE):
            receiver.tell("stop")
        got = Counter(event["id"] for event in receiver.sample()["events"])
    if not cuts:
        raise Undelivered("expected connections of the reader to cut, but there were none")
    lost = [moment for id, moment in enumerate(sent) if not got[id]]
    return {
        "lost": sum(moment < between for moment in lost) / cuts,
        "away": sum(moment >= between for moment in lost) / load.absences,
        "doubled": sum(count - 1 for count in got.values()) / (cuts + load.absences),
    }


REDIS_CUT = Scenario(
    name="redis-cut",
    title="Events lost at a cut",
    about=f"{1 / PACE:.0f} events a second, one at a time, as above. {FULL.cuts} times Redis closes all connections of "
    f"the receiving process (CLIENT KILL), and {FULL.absences} times the reader goes away for {ABSENCE * 1000:.0f} ms "
    "and comes back with its place, if the peer has one: an offset of tailrace, a number of chunks of "
    "fastapi-resumable-stream. The other three continue with what is published from then on. With redis-py 8, "
    "broadcaster's listener ends at a cut without telling its subscribers, so it loses all that comes later, too.",
    peers=(REDIS_PY, BROADCASTER, SOCKETIO_REDIS, RESUMABLE_STREAM, TAILRACE_BUS),
    metrics=(
        Metric("lost", "lost per cut", "events", 2),
        Metric("away", "lost per absence", "events", 2, plotted=True),
        Metric("doubled", "doubled per cut or absence", "events", 2),
    ),
    measure=measure,
    rounds=2,
    own=TAILRACE_BUS,
)

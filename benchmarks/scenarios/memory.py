"""What a waiting subscriber costs."""

from dataclasses import dataclass

from benchmarks.client import Publisher, Swarm, get, upgrade
from benchmarks.peers import (
    BARE,
    FASTAPI,
    LITESTAR,
    NCHAN,
    ROOMS,
    SOCKETS,
    SSE_STARLETTE,
    TAILRACE,
    TAILRACE_ASGI,
    Peer,
)
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM

TIMEOUT = 30.0


@dataclass(frozen=True)
class Load:
    warmup: int
    subscribers: int
    settle: float


FULL = Load(warmup=400, subscribers=2_000, settle=1.0)
QUICK = Load(warmup=100, subscribers=200, settle=0.2)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    request = get("/feed", EVENT_STREAM)
    with peer.serve() as server, Swarm(server.address) as swarm:
        swarm.connect(load.warmup, request)
        swarm.read_for(load.settle)
        before = server.rss()
        swarm.connect(load.subscribers, request)
        swarm.read_for(load.settle)
        growth = server.rss() - before
        # Only now, so that no delivery is counted as the cost of waiting.
        publisher = Publisher(server.address)
        publisher.publish()
        swarm.wait_events(publisher.published, TIMEOUT)
        publisher.close()
    return {"rss_kb": growth / load.subscribers / 1024}


MEMBERS = Load(warmup=100, subscribers=400, settle=1.0)
FEW_MEMBERS = Load(warmup=20, subscribers=50, settle=0.2)


def measure_members(peer: Peer, quick: bool) -> Sample:
    load = FEW_MEMBERS if quick else MEMBERS
    path = "/feed" if peer is ROOMS else "/socket"
    with peer.serve() as server, Swarm(server.address) as swarm:
        for number in range(load.warmup):
            swarm.connect(1, upgrade(f"{path}?name=guest-{number}"))
        swarm.read_for(load.settle)
        before = server.rss()
        for number in range(load.subscribers):
            swarm.connect(1, upgrade(f"{path}?name=member-{number}"))
        swarm.read_for(load.settle)
        growth = server.rss() - before
        publisher = Publisher(server.address)
        publisher.begin()
        swarm.wait_events(publisher.published, TIMEOUT)
        publisher.finish()
        publisher.close()
    return {"rss_kb": growth / load.subscribers / 1024}


MEMORY = Scenario(
    name="memory",
    title="An idle SSE subscriber",
    about=f"Growth of the server's resident memory over {FULL.subscribers:,} idle subscribers, after {FULL.warmup} "
    "that stay connected. One event to all of them proves afterwards that each was subscribed.",
    peers=(FASTAPI, SSE_STARLETTE, LITESTAR, BARE, NCHAN, TAILRACE, TAILRACE_ASGI),
    metrics=(Metric("rss_kb", "server memory per subscriber", "KB", 1, plotted=True),),
    measure=measure,
)

MEMORY_MEMBERS = Scenario(
    name="memory-members",
    title="A member of a room",
    about=f"The same with {MEMBERS.subscribers} WebSockets after {MEMBERS.warmup}. Each is a member of one room with a "
    "name of its own, and the others are told that it has joined. The other peer keeps no names.",
    peers=(SOCKETS, ROOMS),
    metrics=(Metric("rss_kb", "server memory per member", "KB", 1, plotted=True),),
    measure=measure_members,
    own=ROOMS,
)

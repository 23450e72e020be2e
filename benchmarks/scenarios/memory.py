"""What a waiting subscriber costs."""

from dataclasses import dataclass

from benchmarks.client import Publisher, Swarm, get
from benchmarks.peers import BARE, FASTAPI, LITESTAR, NCHAN, SSE_STARLETTE, TAILRACE, TAILRACE_ASGI, Peer
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


MEMORY = Scenario(
    name="memory",
    title="An idle SSE subscriber",
    about=f"Growth of the server's resident memory over {FULL.subscribers:,} idle subscribers, after {FULL.warmup} "
    "that stay connected. One event to all of them proves afterwards that each was subscribed.",
    peers=(FASTAPI, SSE_STARLETTE, LITESTAR, BARE, NCHAN, TAILRACE, TAILRACE_ASGI),
    metrics=(Metric("rss_kb", "server memory per subscriber", "KB", 1, plotted=True),),
    measure=measure,
)

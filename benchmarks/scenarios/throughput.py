"""One stream of small events, as fast as it goes."""

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.client import Swarm, get
from benchmarks.peers import BARE, FASTAPI, LITESTAR, SSE_STARLETTE, TAILRACE, Peer
from benchmarks.process import Server
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM, NDJSON, verify

VERIFIED = 1_000
TIMEOUT = 60.0


@dataclass(frozen=True)
class Load:
    warmup: int
    events: int


FULL = Load(warmup=10_000, events=100_000)
QUICK = Load(warmup=200, events=5_000)

METRICS = (
    Metric("cpu_us", "server CPU per event", "µs", 2, plotted=True),
    Metric("rate", "events per second", "1/s", 0),
    Metric("client_load", "load client's use of its CPU", "%", 0),
)


def measure(peer: Peer, quick: bool, *, path: str, accept: str) -> Sample:
    load = QUICK if quick else FULL
    with peer.serve() as server:
        verify(server.address, f"{path}?n={VERIFIED}", accept, VERIFIED)
        drain(server, path, accept, load.warmup)
        return drain(server, path, accept, load.events)


def drain(server: Server, path: str, accept: str, count: int) -> Sample:
    cpu, own, start = server.cpu(), time.process_time(), time.perf_counter()
    with Swarm(server.address) as swarm:
        swarm.open(1, get(f"{path}?n={count}", accept))
        swarm.wait_ends(count, TIMEOUT)
    elapsed = time.perf_counter() - start
    return {
        "cpu_us": (server.cpu() - cpu) / count * 1e6,
        "rate": count / elapsed,
        "client_load": (time.process_time() - own) / elapsed * 100,
    }


THROUGHPUT = Scenario(
    name="throughput",
    title="One SSE stream",
    about=f"One stream of {FULL.events:,} small JSON events, as fast as the server goes. tailrace sends ids and can "
    "resume; the others send data only.",
    peers=(FASTAPI, SSE_STARLETTE, LITESTAR, BARE, TAILRACE),
    metrics=METRICS,
    measure=partial(measure, path="/sse", accept=EVENT_STREAM),
    rounds=5,
)

THROUGHPUT_NDJSON = Scenario(
    name="throughput-ndjson",
    title="One NDJSON stream",
    about=f"The same {FULL.events:,} events as lines of JSON, against FastAPI's own JSON lines.",
    peers=(FASTAPI, BARE, TAILRACE),
    metrics=METRICS,
    measure=partial(measure, path="/ndjson", accept=NDJSON),
    rounds=5,
)

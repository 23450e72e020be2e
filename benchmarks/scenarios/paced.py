"""Many streams at a steady pace, on one core."""

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.client import Swarm, Undelivered, get
from benchmarks.peers import BARE, FASTAPI, SSE_STARLETTE, TAILRACE, Peer
from benchmarks.process import Server
from benchmarks.quantiles import quantile
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM

PACE = 0.02
SETTLE = 0.5
TIMEOUT = 90.0


@dataclass(frozen=True)
class Load:
    streams: int
    events: int
    # Measured while every stream is under way; their start and end are not.
    window: float


FULL = Load(streams=1_000, events=450, window=4.0)
LIGHT = Load(streams=400, events=300, window=3.0)
QUICK = Load(streams=50, events=75, window=0.5)

METRICS = (
    Metric("cpu_us", "server CPU per event", "µs", 2, plotted=True),
    Metric("core", "use of the server's core", "%", 0),
    Metric("rate", "events per second", "1/s", 0),
    Metric("p50_ms", "median gap", "ms", 1),
    Metric("p99_ms", "p99 gap", "ms", 1, plotted=True),
    Metric("client_load", "load client's use of its CPU", "%", 0),
)


def measure(peer: Peer, quick: bool, *, full: Load) -> Sample:
    load = QUICK if quick else full
    with peer.serve() as server, Swarm(server.address, record_gaps=True) as swarm:
        swarm.connect(load.streams, get(f"/paced?n={load.events}&pace={PACE}", EVENT_STREAM))
        swarm.read_for(SETTLE)
        sample = watch(server, swarm, load.window)
        swarm.wait_ends(load.events, TIMEOUT)
    return sample


def watch(server: Server, swarm: Swarm, window: float) -> Sample:
    del swarm.gaps[:]
    cpu, own, before, start = server.cpu(), time.process_time(), swarm.events, time.perf_counter()
    swarm.read_for(window)
    elapsed = time.perf_counter() - start
    if swarm.ended:
        raise Undelivered(
            f"expected every stream to be under way, but {swarm.ended} have ended: the machine is too busy"
        )
    spent, events = server.cpu() - cpu, swarm.events - before
    return {
        "cpu_us": spent / events * 1e6,
        "core": spent / elapsed * 100,
        "rate": events / elapsed,
        "p50_ms": quantile(swarm.gaps, 0.5) * 1e3,
        "p99_ms": quantile(swarm.gaps, 0.99) * 1e3,
        "client_load": (time.process_time() - own) / elapsed * 100,
    }


def about(load: Load) -> str:
    return (
        f"{load.streams:,} concurrent streams whose generators sleep {PACE * 1000:.0f} ms after each event "
        f"({load.streams / PACE:,.0f} events per second asked for), with the server on one core; measured over "
        f"{load.window:.0f} s while all are under way. A gap is the time between two arrivals on one stream."
    )


PACED = Scenario(
    name="paced",
    title="1,000 streams of 50 events per second",
    about=about(FULL),
    peers=(BARE, TAILRACE),
    metrics=METRICS,
    measure=partial(measure, full=FULL),
)

PACED_LIGHT = Scenario(
    name="paced-light",
    title="400 streams of 50 events per second",
    about=about(LIGHT),
    peers=(FASTAPI, SSE_STARLETTE, BARE, TAILRACE),
    metrics=METRICS,
    measure=partial(measure, full=LIGHT),
    rounds=2,
)

"""From a request to its first event."""

from dataclasses import dataclass

from benchmarks.client import get, time_to_first_event
from benchmarks.peers import BARE, FASTAPI, LITESTAR, SSE_STARLETTE, TAILRACE, Peer
from benchmarks.quantiles import quantile
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM

# Two events, of which the first must not wait for the second.
REQUEST = get("/paced?n=2&pace=0.002", EVENT_STREAM)


@dataclass(frozen=True)
class Load:
    warmup: int
    connections: int


FULL = Load(warmup=50, connections=500)
QUICK = Load(warmup=5, connections=50)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with peer.serve() as server:
        for _ in range(load.warmup):
            time_to_first_event(server.address, REQUEST)
        cpu = server.cpu()
        times = [time_to_first_event(server.address, REQUEST) for _ in range(load.connections)]
        spent = server.cpu() - cpu
    return {
        "median_ms": quantile(times, 0.5) * 1e3,
        "p99_ms": quantile(times, 0.99) * 1e3,
        "cpu_us": spent / load.connections * 1e6,
    }


LATENCY = Scenario(
    name="latency",
    title="Request to first event",
    about=f"{FULL.connections} requests, one after another, each on a new TCP connection; the clock runs from the "
    "request to its first event. Each stream sends two events 2 ms apart and is read to its end.",
    peers=(FASTAPI, SSE_STARLETTE, LITESTAR, BARE, TAILRACE),
    metrics=(
        Metric("median_ms", "median time to first event", "ms", 2, plotted=True),
        Metric("p99_ms", "p99 time to first event", "ms", 2),
        Metric("cpu_us", "server CPU per whole request", "µs", 0),
    ),
    measure=measure,
)

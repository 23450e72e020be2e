"""A long history to many late readers."""

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.client import Publisher, Swarm, get
from benchmarks.peers import BARE, NCHAN, TAILRACE, Peer
from benchmarks.process import Server
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM

TIMEOUT = 90.0


@dataclass(frozen=True)
class Load:
    events: int
    readers: int


FULL = Load(events=100_000, readers=100)
SMALL = Load(events=5_000, readers=20)
QUICK = Load(events=1_000, readers=5)

METRICS = (
    Metric("cpu_us", "server CPU per event", "µs", 2, plotted=True),
    Metric("wall_s", "time until all have everything", "s", 2),
    Metric("growth_mb", "growth of the server's peak memory", "MB", 1),
    Metric("client_load", "load client's use of its CPU", "%", 0),
)


def measure(peer: Peer, quick: bool, *, full: Load) -> Sample:
    load = QUICK if quick else full
    with peer.serve() as server:
        fill(peer, server, load.events)
        return replay(server, load)


def fill(peer: Peer, server: Server, events: int) -> None:
    publisher = Publisher(server.address)
    if peer is NCHAN:
        for _ in range(events):
            publisher.publish()
    else:
        publisher.post(f"/fill?n={events}")
    publisher.close()


def replay(server: Server, load: Load) -> Sample:
    memory, cpu, own, start = server.rss(), server.cpu(), time.process_time(), time.perf_counter()
    with Swarm(server.address) as swarm:
        swarm.open(load.readers, get("/replay", EVENT_STREAM))
        swarm.wait_events(load.events, TIMEOUT)
    elapsed = time.perf_counter() - start
    return {
        "cpu_us": (server.cpu() - cpu) / (load.events * load.readers) * 1e6,
        "wall_s": elapsed,
        "growth_mb": (server.peak_rss() - memory) / 2**20,
        "client_load": (time.process_time() - own) / elapsed * 100,
    }


def about(load: Load) -> str:
    return f"A history of {load.events:,} events, which {load.readers} readers ask for from its start at once."


REPLAY = Scenario(
    name="replay",
    title="100 late readers of 100,000 events",
    about=about(FULL) + " The other peers are in the smaller replay below, to bound the time of a run.",
    peers=(TAILRACE,),
    metrics=METRICS,
    measure=partial(measure, full=FULL),
)

REPLAY_SMALL = Scenario(
    name="replay-small",
    title="20 late readers of 5,000 events",
    about=about(SMALL) + " The bare StreamingResponse yields encoded events from a list, one at a time.",
    peers=(BARE, NCHAN, TAILRACE),
    metrics=METRICS,
    measure=partial(measure, full=SMALL),
)

"""One event to many subscribers, over Server-Sent Events and over WebSockets."""

import time
from dataclasses import dataclass
from statistics import median

from benchmarks.client import Publisher, Swarm, get, text_frame, upgrade
from benchmarks.peers import (
    BARE,
    FASTAPI,
    LITESTAR,
    NCHAN,
    ROOMS,
    SOCKETIO,
    SOCKETS,
    SSE_STARLETTE,
    TAILRACE,
    TAILRACE_ASGI,
    TAILRACE_REDIS,
    Peer,
)
from benchmarks.process import Address, Server
from benchmarks.redis import redis_server
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.verify import EVENT_STREAM

INTERVAL = 0.25
WARMUP = 3
SETTLE = 0.5
TIMEOUT = 30.0
FEED = get("/feed", EVENT_STREAM)


@dataclass(frozen=True)
class Load:
    subscribers: int
    events: int


FULL = Load(subscribers=2_000, events=16)
QUICK = Load(subscribers=200, events=2)


def measure(peer: Peer, quick: bool, request: bytes = FEED, greeting: bytes = b"") -> Sample:
    """Subscribe by a request and, after the head of its response, by a greeting."""
    with peer.serve() as server:
        return watch(server, server.address, QUICK if quick else FULL, request, greeting)


def measure_second(peer: Peer, quick: bool) -> Sample:
    """Publish at one process, and subscribe at another if they share a Redis."""
    if peer is not TAILRACE_REDIS:
        return measure(peer, quick)
    with redis_server() as redis, peer.serve(redis.environment) as first, peer.serve(redis.environment) as second:
        return watch(second, first.address, QUICK if quick else FULL)


def watch(server: Server, publishing: Address, load: Load, request: bytes = FEED, greeting: bytes = b"") -> Sample:
    with Swarm(server.address) as swarm:
        swarm.connect(load.subscribers, request)
        swarm.send(greeting)
        # A peer may send the head of a response before its generator has subscribed.
        swarm.read_for(SETTLE)
        publisher = Publisher(publishing)
        for _ in range(WARMUP):
            deliver(publisher, swarm)
        sample = broadcast(server, publisher, swarm, load.events)
        publisher.close()
    return sample


def broadcast(server: Server, publisher: Publisher, swarm: Swarm, events: int) -> Sample:
    cpu, before = server.cpu(), swarm.events
    times = [deliver(publisher, swarm) for _ in range(events)]
    return {
        "cpu_us": (server.cpu() - cpu) / (swarm.events - before) * 1e6,
        "last_ms": median(times) * 1e3,
    }


def deliver(publisher: Publisher, swarm: Swarm) -> float:
    """Publish one event, see it reach every subscriber, and give the server the rest of the interval.

    A peer that needs longer than the interval gets longer: its events must not pile up and be sent together. Some
    peers answer the publisher before they deliver and some after. The subscribers read meanwhile in both cases, as to
    wake one that waits takes a part of the server's time.
    """
    start = time.perf_counter()
    publisher.begin()
    swarm.wait_events(publisher.published, TIMEOUT)
    elapsed = time.perf_counter() - start
    publisher.finish()
    swarm.read_for(INTERVAL - elapsed)
    return elapsed


def measure_sockets(peer: Peer, quick: bool) -> Sample:
    if peer is SOCKETIO:
        # A client of Socket.IO connects to the main namespace before it gets events.
        return measure(peer, quick, upgrade("/socket.io/?EIO=4&transport=websocket"), text_frame("40"))
    return measure(peer, quick, upgrade("/feed" if peer is ROOMS else "/socket"))


METRICS = (
    Metric("cpu_us", "server CPU per delivery", "µs", 2, plotted=True),
    Metric("last_ms", "time to the last subscriber", "ms", 1),
)

FANOUT = Scenario(
    name="fanout",
    title="One event to 2,000 SSE subscribers",
    about=f"{FULL.subscribers:,} subscribers, one event published by POST every {INTERVAL * 1000:.0f} ms, and not "
    f"before the last one reached everyone; {FULL.events} events. A peer with no broadcast of its own gets a queue per "
    "subscriber, and encodes an event once where its interface takes encoded text.",
    peers=(FASTAPI, SSE_STARLETTE, LITESTAR, BARE, NCHAN, TAILRACE, TAILRACE_ASGI),
    metrics=METRICS,
    measure=measure,
)

FANOUT_SECOND = Scenario(
    name="fanout-second",
    title="One event to 2,000 SSE subscribers of a second process",
    about=f"The same {FULL.subscribers:,} subscribers at one process, while the events are published at another one. "
    "The two share a Redis. The other peer is one process that does both, with its streams in memory. The CPU is that "
    "of the process with the subscribers. On a machine of two cores, it shares its core with the other one and Redis.",
    peers=(TAILRACE, TAILRACE_REDIS),
    metrics=METRICS,
    measure=measure_second,
    own=TAILRACE_REDIS,
)

FANOUT_SOCKETS = Scenario(
    name="fanout-sockets",
    title="One event to 2,000 WebSockets",
    about=f"The same with {FULL.subscribers:,} WebSockets. The other peer awaits `send_text` one after the other, so "
    "one that reads nothing keeps the rest waiting. The readers of tailrace do not wait for each other.",
    peers=(SOCKETS, TAILRACE),
    metrics=METRICS,
    measure=measure_sockets,
)

FANOUT_ROOM = Scenario(
    name="fanout-room",
    title="One message to 2,000 WebSockets in a room",
    about=f"The same with {FULL.subscribers:,} readers of a room, whose messages carry their sender and time. The room "
    "keeps its history, which the other peers do not. python-socketio serves a room of its own by the transport "
    "WebSocket alone, and sends no heartbeats while it is measured.",
    peers=(SOCKETS, SOCKETIO, ROOMS),
    metrics=METRICS,
    measure=measure_sockets,
    own=ROOMS,
)

FANOUT_ROOM_SSE = Scenario(
    name="fanout-room-sse",
    title="One message to 2,000 SSE readers of a room",
    about=f"The same over Server-Sent Events with {FULL.subscribers:,} readers.",
    peers=(NCHAN, ROOMS),
    metrics=METRICS,
    measure=measure,
    own=ROOMS,
)

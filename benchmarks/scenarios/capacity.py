"""What a stream in Redis, its reader and its events cost: how far one worker and one Redis go."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.client import Publisher
from benchmarks.crowd import Crowd, publish
from benchmarks.peers import TAILRACE_FEEDS, Peer
from benchmarks.process import Server
from benchmarks.redis import RedisServer, redis_server
from benchmarks.scenarios.base import Metric, Sample, Scenario

SETTLE = 0.5
TIMEOUT = 60.0


@dataclass(frozen=True)
class Load:
    warmup: int
    streams: int
    # Of each stream, after its first one.
    events: int
    idle: float
    # Events of one stream, to see what they take in Redis.
    kept: int


FULL = Load(warmup=200, streams=2_200, events=10, idle=3.0, kept=2_000)
QUICK = Load(warmup=20, streams=120, events=2, idle=0.5, kept=100)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        first, second = (stack.enter_context(peer.serve(redis.environment)) for _ in range(2))
        crowd = stack.enter_context(Crowd(second.address))
        return {
            **subscribe(redis, first, second, crowd, load),
            **rest(redis, second, crowd, load),
            **deliver(redis, first, second, crowd, load),
            "event_bytes": growth(redis, first, load),
        }


def subscribe(redis: RedisServer, first: Server, second: Server, crowd: Crowd, load: Load) -> Sample:
    """Make all streams at one process, and read each at another."""
    empty = redis.memory()
    publish(first, crowd, load.streams, first=0, count=1)
    crowd.join(f"/feeds/{number}" for number in range(load.warmup))
    crowd.read_for(SETTLE)
    before = second.rss()
    crowd.join(f"/feeds/{number}" for number in range(load.warmup, load.streams))
    crowd.wait(TIMEOUT)
    crowd.read_for(SETTLE)
    return {
        "reader_kb": (second.rss() - before) / (load.streams - load.warmup) / 1024,
        "stream_kb": (redis.memory() - empty) / load.streams / 1024,
    }


def rest(redis: RedisServer, second: Server, crowd: Crowd, load: Load) -> Sample:
    cpu, redis_cpu, start = second.cpu(), redis.cpu(), time.perf_counter()
    crowd.read_for(load.idle)
    elapsed = time.perf_counter() - start
    return {
        "idle_us": (second.cpu() - cpu) / elapsed / load.streams * 1e6,
        "redis_idle_us": (redis.cpu() - redis_cpu) / elapsed / load.streams * 1e6,
    }


def deliver(redis: RedisServer, first: Server, second: Server, crowd: Crowd, load: Load) -> Sample:
    """Publish one event to each stream at the one process, see them reach all readers of the other, and so on."""
    redis_cpu, cpu, second_cpu = redis.cpu(), first.cpu(), second.cpu()
    start = time.perf_counter()
    for number in range(load.events):
        publish(first, crowd, load.streams, first=1 + number, count=1)
        crowd.wait(TIMEOUT)
    elapsed, events = time.perf_counter() - start, load.streams * load.events
    return {
        "rate": events / elapsed,
        "publish_us": (first.cpu() - cpu) / events * 1e6,
        "deliver_us": (second.cpu() - second_cpu) / events * 1e6,
        "redis_us": (redis.cpu() - redis_cpu) / events * 1e6,
    }


def growth(redis: RedisServer, first: Server, load: Load) -> float:
    """Return how many bytes an event takes in a stream that has many."""
    publisher, before = Publisher(first.address), redis.memory()
    for number in range(load.kept):
        publisher.post(f"/publish?feeds=1&first={1 + load.events + number}&count=1")
    publisher.close()
    return (redis.memory() - before) / load.kept


CAPACITY = Scenario(
    name="capacity",
    title="2,200 streams in Redis, each with a reader",
    about=f"One process publishes an event to each of {FULL.streams:,} streams, and another process has an SSE reader "
    f"of each. Memory is the growth of the second process over all readers but the first {FULL.warmup}, and that of "
    "Redis over all streams, which includes the 4 KB that it allocates for the first events of each. Then nothing "
    f"happens for {FULL.idle:.0f} s, while each process compares its streams with Redis once a second. After that, an "
    f"event is published to each stream and reaches its reader, {FULL.events} times. A route publishes with "
    "`engine.log(name)` and `append`. Each is a command; a process that reads the log, or holds it for another reason, "
    "saves the first. Events per second are those of the two processes and Redis together, on one core if there are "
    f"only two. In the end, one stream gets {FULL.kept:,} more events. The CPU per event says how many events a second "
    "one core of a worker or of Redis can carry.",
    peers=(TAILRACE_FEEDS,),
    metrics=(
        Metric("reader_kb", "server memory per stream and its reader", "KB", 1),
        Metric("stream_kb", "memory of Redis per stream", "KB", 2),
        Metric("event_bytes", "memory of Redis per event of a long stream", "bytes", 0),
        Metric("idle_us", "server CPU per idle stream and second", "µs", 1),
        Metric("redis_idle_us", "CPU of Redis per idle stream and second", "µs", 1),
        Metric("publish_us", "CPU of the publishing process per event", "µs", 1),
        Metric("redis_us", "CPU of Redis per event", "µs", 1),
        Metric("deliver_us", "CPU of the reading process per event", "µs", 1),
        Metric("rate", "events per second", "1/s", 0, more_is_better=True),
    ),
    measure=measure,
    own=TAILRACE_FEEDS,
)

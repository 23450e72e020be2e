"""Thousands of readers whose server is gone, and who all come back at another one at once."""

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.crowd import Crowd, publish
from benchmarks.peers import WORKER_KILLED, WORKER_STOPPED, Peer
from benchmarks.quantiles import quantile
from benchmarks.redis import redis_server
from benchmarks.scenarios.base import Metric, Sample, Scenario

BEFORE = 4
"""Events of each stream that all have before the worker is gone."""
MISSED = 8
"""Events of each stream that are published while the readers are away."""
TIMEOUT = 60.0


@dataclass(frozen=True)
class Load:
    readers: int
    streams: int


FULL = Load(readers=5_000, streams=50)
QUICK = Load(readers=200, streams=10)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        first, second, third = (stack.enter_context(peer.serve(redis.environment)) for _ in range(3))
        crowd = stack.enter_context(Crowd(first.address))
        publish(third, crowd, load.streams, first=0, count=1)  # makes the streams
        crowd.join(f"/feeds/{number % load.streams}" for number in range(load.readers))
        publish(third, crowd, load.streams, first=1, count=BEFORE - 1)
        crowd.wait(TIMEOUT)

        crowd.address = None
        start = time.perf_counter()
        os.kill(first.pid, signal.SIGTERM if peer is WORKER_STOPPED else signal.SIGKILL)
        crowd.wait_left(TIMEOUT)
        publish(third, crowd, load.streams, first=BEFORE, count=MISSED)
        cpu, redis_cpu, commands = second.cpu(), redis.cpu(), redis.commands()
        crowd.address = second.address
        crowd.wait(TIMEOUT)
        sample = {
            "last_ms": (max(crowd.arrivals) - start) * 1e3,
            "p99_ms": (quantile(crowd.arrivals, 0.99) - start) * 1e3,
            "p50_ms": (quantile(crowd.arrivals, 0.5) - start) * 1e3,
            "cpu_us": (second.cpu() - cpu) / load.readers * 1e6,
            "redis_ms": (redis.cpu() - redis_cpu) * 1e3,
            "commands": (redis.commands() - commands).total(),
            "connections": max(redis.connections().values()),
        }
        # All of them are subscribed again, and none has anything twice.
        publish(third, crowd, load.streams, first=BEFORE + MISSED, count=1)
        crowd.wait(TIMEOUT)
    return sample


RECONNECT_STORM = Scenario(
    name="reconnect-storm",
    title="5,000 readers whose worker is gone",
    about=f"{FULL.readers:,} SSE readers of {FULL.streams} streams in Redis are at one worker. The worker is killed "
    f"with SIGKILL, {MISSED} events are published to each stream at another process, and all readers reconnect at once "
    "to a worker that has served none of these streams, each with its cursor. The time is from the signal until a "
    "reader has everything. Every reader's events are checked to be a contiguous run, from before the loss until "
    "after it. The other peer is a worker that is told to stop: it tells its readers to come back after a random time "
    "of 0.5 to 3 s, which they do. All servers run with `--backlog 8192`: with uvicorn's 2,048, most connections find "
    "the queue full, and TCP tries again after 1 s, 3 s and 7 s. The CPU is that of the worker to which the readers "
    "come, nearly all of it what the server and the framework need for a request. The commands are all that Redis "
    "ran meanwhile, including those inside scripts and those of each process's beat. On a machine of two cores, all "
    "servers share one.",
    peers=(WORKER_KILLED, WORKER_STOPPED),
    metrics=(
        Metric("last_ms", "time until the last reader has caught up", "ms", 0, plotted=True),
        Metric("p99_ms", "p99 of the readers", "ms", 0),
        Metric("p50_ms", "median reader", "ms", 0),
        Metric("cpu_us", "server CPU per reader", "µs", 0),
        Metric("redis_ms", "CPU of Redis", "ms", 1),
        Metric("commands", "commands of Redis", "commands", 0),
        Metric("connections", "most connections of a process to Redis", "connections", 0),
    ),
    measure=measure,
    rounds=2,
    own=WORKER_KILLED,
)

"""The chat server with two workers, beside one."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.client import Swarm, Undelivered, post
from benchmarks.conversation import MARKER, PATH, count_chunks
from benchmarks.peers import ONE_WORKER, ONE_WORKER_REDIS, TWO_WORKERS, Peer
from benchmarks.process import Server
from benchmarks.redis import RedisServer, redis_server
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.chat import MESSAGE, verify
from benchmarks.verify import NDJSON

PACE = 0.005
WORDS = 4.0
WARMUP = 20
TIMEOUT = 90.0


@dataclass(frozen=True)
class Load:
    replies: int


FULL = Load(replies=400)
QUICK = Load(replies=40)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    environment = {"TAILRACE_DEMO_WORDS": str(WORDS), "TAILRACE_DEMO_PACE": str(PACE)}
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(pinned=False))
        if peer is not ONE_WORKER:
            environment |= redis.environment
        server = stack.enter_context(peer.serve(environment))
        verify(server.address)
        if peer is TWO_WORKERS:
            wait_for_both(server, redis)
        return watch(server, redis, load.replies)


def wait_for_both(server: Server, redis: RedisServer) -> None:
    """Ask until both workers have answered something, because the one that starts first takes all until then."""
    deadline = time.monotonic() + TIMEOUT
    while len(redis.connections()) < 2:
        if time.monotonic() > deadline:
            raise Undelivered(f"expected two workers within {TIMEOUT:.0f} s, but got {redis.connections()}")
        answer(server, WARMUP)


def watch(server: Server, redis: RedisServer, replies: int) -> Sample:
    processes = server.family()
    before = [process.cpu() for process in processes]
    redis_before, own, start = redis.cpu(), time.process_time(), time.perf_counter()
    answer(server, replies)
    elapsed = time.perf_counter() - start
    spent = [process.cpu() - cpu for process, cpu in zip(processes, before, strict=True)]
    return {
        "possible": replies / max(spent),
        "rate": replies / elapsed,
        "cpu_ms": sum(spent) / replies * 1e3,
        "busiest": max(spent) / sum(spent) * 100,
        "redis_ms": (redis.cpu() - redis_before) / replies * 1e3,
        "client_ms": (time.process_time() - own) / replies * 1e3,
    }


def answer(server: Server, replies: int) -> None:
    """Begin so many sessions at once, and read each reply to its end."""
    with Swarm(server.address, marker=MARKER) as swarm:
        swarm.connect(replies, post(PATH, NDJSON, {"message": MESSAGE}))
        swarm.wait_ends(count_chunks(MESSAGE, WORDS), TIMEOUT)


CHAT_WORKERS = Scenario(
    name="chat-workers",
    title="Chat replies of two workers",
    about=f"{FULL.replies} sessions begin at once, and each reply is read to its end: "
    f"{count_chunks(MESSAGE, WORDS)} chunks, {PACE * 1000:.0f} ms apart, which is faster than any of the "
    "servers can go. All run as `tailrace serve` does for a user, with an SQLite file that the workers share. They, "
    "Redis and the load client may use all cores. Two workers need four cores for that, one each for Redis and the "
    "client; on a machine of two, they share them, and the replies per second that were measured cannot double. "
    "Therefore the floor applies to the first column: the throughput if each process of the server had a core for "
    "itself, computed from the CPU per reply of the busiest one. It includes what Redis costs a worker, and an uneven "
    "load of the two. It excludes Redis and the load client, whose CPU is in the last columns.",
    peers=(ONE_WORKER, ONE_WORKER_REDIS, TWO_WORKERS),
    metrics=(
        Metric("possible", "throughput with a core for each worker", "replies/s", 1, plotted=True, more_is_better=True),
        Metric("rate", "throughput here", "replies/s", 1, more_is_better=True),
        Metric("cpu_ms", "server CPU per reply", "ms", 2),
        Metric("busiest", "share of the busiest process", "%", 0),
        Metric("redis_ms", "CPU of Redis per reply", "ms", 2),
        Metric("client_ms", "CPU of the load client per reply", "ms", 2),
    ),
    measure=measure,
    rounds=2,
    own=TWO_WORKERS,
)

"""From one process through Redis to another, at a steady pace."""

from dataclasses import dataclass

from benchmarks.peers import BROADCASTER, REDIS_PY, RESUMABLE_STREAM, SOCKETIO_REDIS, TAILRACE_BUS, Peer
from benchmarks.quantiles import quantile
from benchmarks.redis import redis_server
from benchmarks.relay import check, program
from benchmarks.scenarios.base import Metric, Sample, Scenario

PACE = 0.002


@dataclass(frozen=True)
class Load:
    events: int


FULL = Load(events=1_000)
QUICK = Load(events=100)


def measure(peer: Peer, quick: bool) -> Sample:
    count = (QUICK if quick else FULL).events
    with (
        redis_server() as redis,
        program(redis, peer, "pace", count, PACE, beside_redis=True) as publisher,
        program(redis, peer, "receive", count) as receiver,
    ):
        publisher.wait_ready()
        receiver.wait_ready()
        publisher.tell("begin")
        sent, received = publisher.sample()["sent"], receiver.sample()
    check(received["events"], count)
    times = [
        arrived - sent[event["id"]] for arrived, event in zip(received["arrived"], received["events"], strict=True)
    ]
    return {
        "median_ms": quantile(times, 0.5) * 1e3,
        "p99_ms": quantile(times, 0.99) * 1e3,
        "cpu_us": received["cpu"] / count * 1e6,
    }


REDIS_DELIVER = Scenario(
    name="redis-deliver",
    title="Delivery to another process through Redis",
    about=f"{1 / PACE:.0f} events a second, {FULL.events:,} of them, one at a time. The clock runs from the call "
    "in one process to the event in the other, which has a core of its own; the publisher shares the other with Redis. "
    "No peer sends anything to a client: redis-py has delivered an event when `listen()` returns it, broadcaster when "
    "its subscriber does, python-socketio when its manager is about to emit it to its own clients, "
    "fastapi-resumable-stream when its response would send it, and tailrace when `log.tail()` returns it. "
    "broadcaster subscribes to another channel first, because its first one gets nothing with redis-py 8.",
    peers=(REDIS_PY, BROADCASTER, SOCKETIO_REDIS, RESUMABLE_STREAM, TAILRACE_BUS),
    metrics=(
        Metric("median_ms", "median time to delivery", "ms", 2, plotted=True),
        Metric("p99_ms", "p99 time to delivery", "ms", 2),
        Metric("cpu_us", "receiver's CPU per delivery", "µs", 0, plotted=True),
    ),
    measure=measure,
    own=TAILRACE_BUS,
)

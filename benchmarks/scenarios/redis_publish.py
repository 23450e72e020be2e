"""Events that one process publishes through Redis, in batches."""

from functools import partial

from benchmarks.peers import BROADCASTER, REDIS_PY, REDIS_PY_EACH, RESUMABLE_STREAM, SOCKETIO_REDIS, TAILRACE_BUS, Peer
from benchmarks.redis import redis_server
from benchmarks.relay import program
from benchmarks.scenarios.base import Metric, Sample, Scenario

SECONDS = 1.0
QUICK = 0.1


def measure(batch: int, peer: Peer, quick: bool) -> Sample:
    with redis_server() as redis, program(redis, peer, "publish", batch, QUICK if quick else SECONDS) as publisher:
        publisher.wait_ready()
        before = redis.cpu()
        publisher.tell("begin")
        sample = publisher.sample()
        spent, events = redis.cpu() - before, sample["events"]
    return {
        "rate": events / sample["seconds"],
        "cpu_us": sample["cpu"] / events * 1e6,
        "redis_us": spent / events * 1e6,
    }


def scenario(batch: int, title: str, about: str, *others: Peer) -> Scenario:
    return Scenario(
        name=f"redis-publish-{batch}",
        title=title,
        about=about,
        peers=(REDIS_PY, *others, BROADCASTER, SOCKETIO_REDIS, RESUMABLE_STREAM, TAILRACE_BUS),
        metrics=(
            Metric("rate", "published", "events/s", 0, plotted=True, more_is_better=True),
            Metric("cpu_us", "publisher's CPU per event", "µs", 2),
            Metric("redis_us", "CPU of Redis per event", "µs", 2),
        ),
        measure=partial(measure, batch),
        own=TAILRACE_BUS,
    )


REDIS_PUBLISH_1 = scenario(
    1,
    "Publishing through Redis one by one",
    f"One process publishes an event, waits until Redis has it, and publishes the next, for {SECONDS:.0f} s. Nobody "
    "receives them meanwhile; some are received and compared beforehand. Redis runs without persistence on a core of "
    "its own. tailrace (`log.append`) keeps a history of 10,000 events, in one call. fastapi-resumable-stream keeps "
    "all events, in five calls. The others keep none. python-socketio is a write-only manager that emits to a room.",
)
BATCHED = (
    "The same with {batch} events at once. tailrace appends them in one call. redis-py publishes them as the lines of "
    "one message, and, as applications do that want a message for each event, in one pipeline. The others take one "
    "event a call, and one call is made after the other."
)
REDIS_PUBLISH_16 = scenario(16, "Publishing through Redis by sixteen", BATCHED.format(batch=16), REDIS_PY_EACH)
REDIS_PUBLISH_256 = scenario(256, "Publishing through Redis by 256", BATCHED.format(batch=256), REDIS_PY_EACH)

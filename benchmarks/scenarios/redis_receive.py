"""What a process does for each message from Redis, if many have come."""

from benchmarks.peers import BROADCASTER, REDIS_PY, SOCKETIO_REDIS, TAILRACE_BUS, Peer
from benchmarks.redis import redis_server
from benchmarks.relay import check, program
from benchmarks.scenarios.base import Metric, Sample, Scenario

EVENTS = 10_000
QUICK = 1_000


def measure(peer: Peer, quick: bool) -> Sample:
    count = QUICK if quick else EVENTS
    with (
        redis_server() as redis,
        program(redis, peer, "flood", count) as publisher,
        program(redis, peer, "receive", count) as receiver,
    ):
        publisher.wait_ready()
        receiver.wait_ready()
        receiver.pause()
        publisher.tell("begin")
        publisher.sample()
        receiver.go_on()
        received = receiver.sample()
    check(received["events"], count)
    return {"cpu_us": received["cpu"] / count * 1e6}


REDIS_RECEIVE = Scenario(
    name="redis-receive",
    title="Receiving a flood from Redis",
    about=f"{EVENTS:,} events are published while the receiving process is stopped, each as a message of its own, so "
    "that it finds all of them when it goes on. Delivery is defined as in the section above. tailrace would put events "
    "that one process appends at once into one message. fastapi-resumable-stream is left out: its readers read a list "
    "and get no messages with events.",
    peers=(REDIS_PY, BROADCASTER, SOCKETIO_REDIS, TAILRACE_BUS),
    metrics=(Metric("cpu_us", "receiver's CPU per message", "µs", 2, plotted=True),),
    measure=measure,
    own=TAILRACE_BUS,
)

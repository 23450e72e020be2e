"""From a message to the first chunk of its reply."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.conversation import Conversation
from benchmarks.peers import BARE_CHAT, LONG_SESSIONS, Peer
from benchmarks.quantiles import quantile
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.stored import session_id

MESSAGE = "short"
EAGER = {"TAILRACE_DEMO_PACE": "0"}
"""A model that never waits."""


@dataclass(frozen=True)
class Load:
    warmup: int
    messages: int


# No more than there are stored sessions, since each is asked once.
FULL = Load(warmup=50, messages=150)
QUICK = Load(warmup=5, messages=20)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with peer.serve(EAGER) as server:
        conversation = Conversation(server.address)
        conversation.verify(MESSAGE)
        ask(load.warmup, lambda number: conversation.first_chunk(MESSAGE))
        cpu = server.cpu()
        new = ask(load.messages, lambda number: conversation.first_chunk(MESSAGE))
        spent = server.cpu() - cpu
        ask(load.warmup, lambda number: conversation.first_chunk(MESSAGE, session_id(FULL.messages + number)))
        long = ask(load.messages, lambda number: conversation.first_chunk(MESSAGE, session_id(number)))
        conversation.close()
    return {
        "new_ms": quantile(new, 0.5) * 1e3,
        "new_p99_ms": quantile(new, 0.99) * 1e3,
        "long_ms": quantile(long, 0.5) * 1e3,
        "long_p99_ms": quantile(long, 0.99) * 1e3,
        "cpu_us": spent / load.messages * 1e6,
    }


def ask(count: int, one: Callable[[int], float]) -> list[float]:
    return [one(number) for number in range(count)]


CHAT_FIRST = Scenario(
    name="chat-first",
    title="Message to first chunk",
    about=f"{FULL.messages} messages that each begin a session, then as many that each continue a session of 20 "
    "turns, one after another on one kept connection; the clock runs from the message to the first chunk of its reply. "
    "The model does not wait between its pieces, and each reply is read to its end. By then the message is in the "
    "SQLite file. The bare response has no sessions, and stores nothing.",
    peers=(BARE_CHAT, LONG_SESSIONS),
    metrics=(
        Metric("new_ms", "median time to first chunk, new session", "ms", 2, plotted=True),
        Metric("new_p99_ms", "p99, new session", "ms", 2),
        Metric("long_ms", "median time to first chunk, session of 20 turns", "ms", 2),
        Metric("long_p99_ms", "p99, session of 20 turns", "ms", 2),
        Metric("cpu_us", "server CPU per whole reply, new session", "µs", 0),
    ),
    measure=measure,
    own=LONG_SESSIONS,
)

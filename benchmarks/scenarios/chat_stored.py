"""Whether it matters how many sessions there are."""

from dataclasses import dataclass

from benchmarks.conversation import Conversation
from benchmarks.peers import FEW_SESSIONS, MANY_SESSIONS, Peer
from benchmarks.quantiles import quantile
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.chat_first import EAGER, MESSAGE, ask
from benchmarks.stored import session_id

PAGE = 50
FEWEST = 100


@dataclass(frozen=True)
class Load:
    warmup: int
    requests: int


FULL = Load(warmup=50, requests=250)
QUICK = Load(warmup=5, requests=20)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with peer.serve(EAGER) as server:
        conversation = Conversation(server.address)
        conversation.verify(MESSAGE)

        def page(number: int) -> float:
            return conversation.page(f"/sessions?limit={PAGE}")

        def first(number: int) -> float:
            # Every other message begins a session, the others go on with the stored ones in turn.
            known = session_id(number % FEWEST) if number % 2 else None
            return conversation.first_chunk(MESSAGE, known)

        ask(load.warmup, page)
        ask(load.warmup, first)
        cpu = server.cpu()
        pages = ask(load.requests, page)
        between = server.cpu()
        firsts = ask(load.requests, first)
        end = server.cpu()
        conversation.close()
    return {
        "list_ms": quantile(pages, 0.5) * 1e3,
        "first_ms": quantile(firsts, 0.5) * 1e3,
        "list_cpu_us": (between - cpu) / load.requests * 1e6,
        "first_cpu_us": (end - between) / load.requests * 1e6,
    }


CHAT_STORED = Scenario(
    name="chat-stored",
    title="100,000 stored sessions",
    about="The same requests to `tailrace serve` with an SQLite file of 100 sessions and with one of 100,000, a turn "
    "each: "
    f"{FULL.requests} times the newest {PAGE} of `GET /sessions`, then {FULL.requests} messages, every other to a "
    "stored session. Requests follow one another on one kept connection; the model does not wait between its pieces.",
    peers=(FEW_SESSIONS, MANY_SESSIONS),
    metrics=(
        Metric("list_ms", "median time of a page of sessions", "ms", 2, plotted=True),
        Metric("first_ms", "median time to first chunk", "ms", 2, plotted=True),
        Metric("list_cpu_us", "server CPU per page", "µs", 0),
        Metric("first_cpu_us", "server CPU per whole reply", "µs", 0),
    ),
    measure=measure,
    rounds=5,
    own=MANY_SESSIONS,
)

"""Many replies at a steady pace, on one core, through the whole of the chat server."""

from dataclasses import dataclass
from functools import partial

from benchmarks.client import Swarm, post
from benchmarks.conversation import MARKER, PATH, Conversation, count_chunks
from benchmarks.peers import BARE_CHAT, Peer
from benchmarks.peers import CHAT as SERVER
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.paced import METRICS, PACE, SETTLE, TIMEOUT, watch
from benchmarks.verify import NDJSON

MESSAGE = "Please write something long."


@dataclass(frozen=True)
class Load:
    streams: int
    # Of a chunk, on average: the fewer, the longer is a reply, which has to outlast the beginning of all others.
    words: float
    # Measured while every reply is under way; their start and end are not.
    window: float

    @property
    def chunks(self) -> int:
        return count_chunks(MESSAGE, self.words)


FULL = Load(streams=1_000, words=1.0, window=4.0)
LIGHT = Load(streams=300, words=2.0, window=4.0)
QUICK = Load(streams=50, words=4.0, window=1.0)


def measure(peer: Peer, quick: bool, *, full: Load) -> Sample:
    load = QUICK if quick else full
    environment = {"TAILRACE_DEMO_WORDS": str(load.words), "TAILRACE_DEMO_PACE": str(PACE)}
    with peer.serve(environment) as server, Swarm(server.address, marker=MARKER, record_gaps=True) as swarm:
        verify(server.address)
        swarm.connect(load.streams, post(PATH, NDJSON, {"message": MESSAGE}))
        swarm.read_for(SETTLE)
        sample = watch(server, swarm, load.window)
        swarm.wait_ends(load.chunks, TIMEOUT)
    return sample


def verify(address: tuple[str, int]) -> None:
    conversation = Conversation(address)
    conversation.verify("short")
    conversation.close()


def about(load: Load) -> str:
    return (
        f"{load.streams:,} sessions are begun, and each reply has {load.chunks:,} chunks, {PACE * 1000:.0f} ms after "
        f"each other ({load.streams / PACE:,.0f} chunks per second asked for), with the server on one core; measured "
        f"over {load.window:.0f} s while all are under way. `tailrace serve` runs as it does for a user: each reply is "
        "a log, an NDJSON object carries its cursor, statistics are kept, records go as JSON lines into a file, "
        "messages into an SQLite file, and once a second the text so far of each reply, too. The bare response sends "
        "the pieces of the same model in the same objects, without cursors, and keeps nothing."
    )


OWN_METRICS = (Metric("cpu_us", "server CPU per chunk", "µs", 2, plotted=True), *METRICS[1:])

CHAT = Scenario(
    name="chat",
    title="1,000 chat replies of 50 chunks per second",
    about=about(FULL),
    peers=(BARE_CHAT, SERVER),
    metrics=OWN_METRICS,
    measure=partial(measure, full=FULL),
    rounds=2,
    own=SERVER,
)

CHAT_LIGHT = Scenario(
    name="chat-light",
    title="300 chat replies of 50 chunks per second",
    about=about(LIGHT),
    peers=(BARE_CHAT, SERVER),
    metrics=OWN_METRICS,
    measure=partial(measure, full=LIGHT),
    own=SERVER,
)

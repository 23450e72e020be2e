"""What tailrace must reach, and whether it does."""

from dataclasses import dataclass
from statistics import median

from benchmarks.peers import (
    BARE,
    BARE_CHAT,
    BROADCASTER,
    CHAT,
    ECHO,
    FASTAPI,
    FEW_SESSIONS,
    FILE_LOOP,
    HTTPX_SSE,
    HTTPX_SSE_DECODER,
    IMPORTS,
    LONG_SESSIONS,
    MANY_SESSIONS,
    NCHAN,
    ONE_WORKER,
    OPENAI,
    PACKETS,
    PACKETS_SOCKET,
    REDIS_PY,
    REDIS_PY_EACH,
    RESUMABLE_STREAM,
    RICH_LIVE,
    ROOMS,
    SOCKETIO_REDIS,
    SOCKETS,
    SSE_STARLETTE,
    STARLETTE_FILE,
    TAILRACE,
    TAILRACE_ASGI,
    TAILRACE_BUS,
    TAILRACE_DECODER,
    TAILRACE_FILE,
    TAILRACE_PROMPT,
    TAILRACE_REDIS,
    TAILRACE_TAIL,
    TAILRACE_TERMINAL,
    TWO_WORKERS,
    WORKER_KILLED,
    Peer,
)
from benchmarks.results import Results, Spread
from benchmarks.scenarios import SCENARIOS, Metric


@dataclass(frozen=True)
class Verdict:
    """A floor against what was measured.

    `spare` is the distance from the limit as a share of it, negative if missed; `holds` says what stands in the way.
    """

    work: str
    floor: str
    measured: str
    spread: str
    spare: float
    holds: str

    @property
    def reached(self) -> bool:
        return self.spare >= 0


@dataclass(frozen=True)
class Floor:
    """A limit on one metric of tailrace."""

    scenario: str
    metric: str
    limit: float
    peer: Peer = TAILRACE
    holds: str = ""

    def judge(self, results: Results) -> Verdict | None:
        """None if what it takes was not measured."""
        spread = self.find(results, self.peer)
        if spread is None:
            return None
        show = self.definition.show
        return Verdict(
            work=self.work,
            floor=f"≤ {show(self.limit)}",
            measured=show(spread.median),
            spread=f"{show(spread.min)} – {show(spread.max)}",
            spare=1 - spread.median / self.limit,
            holds=self.holds,
        )

    @property
    def definition(self) -> Metric:
        return SCENARIOS[self.scenario].metric(self.metric)

    @property
    def work(self) -> str:
        return f"{SCENARIOS[self.scenario].title}: {self.definition.label}, {self.peer.label}"

    def find(self, results: Results, peer: Peer) -> Spread | None:
        if (scenario := results.scenarios.get(self.scenario)) is None:
            return None
        return scenario.peers.get(peer.name, {}).get(self.metric)


@dataclass(frozen=True)
class RatioFloor(Floor):
    """A limit on one metric of tailrace as a multiple of a rival's, judged by the median of the rounds' ratios."""

    rival: Peer = BARE
    # Written as "at least so many times less" rather than "at most so many times as much".
    less: bool = False

    @property
    def at_least(self) -> bool:
        return self.less or self.definition.more_is_better

    def judge(self, results: Results) -> Verdict | None:
        own, rival = self.find(results, self.peer), self.find(results, self.rival)
        if own is None or rival is None:
            return None
        # Neighbours in time are compared: a machine that is busy for a while slows both.
        ratios = [self.ratio(a, b) for a, b in zip(own.rounds, rival.rounds, strict=True)]
        ratio = median(ratios)
        return Verdict(
            work=self.work,
            floor=self.show(f"{'≥' if self.at_least else '≤'} {self.limit:g}"),
            measured=self.show(f"{ratio:.2f}"),
            spread=f"{min(ratios):.2f} – {max(ratios):.2f}",
            spare=ratio / self.limit - 1 if self.at_least else 1 - ratio / self.limit,
            holds=self.holds,
        )

    def ratio(self, own: float, rival: float) -> float:
        return rival / own if self.less else own / rival

    def show(self, ratio: str) -> str:
        return f"{ratio}× {'less than ' if self.less else ''}{self.rival.label}"


@dataclass(frozen=True)
class NoneFloor(Floor):
    """What must not happen in any round."""

    limit: float = 0.0

    def judge(self, results: Results) -> Verdict | None:
        if (spread := self.find(results, self.peer)) is None:
            return None
        show = self.definition.show
        return Verdict(
            work=self.work,
            floor="none",
            measured=show(spread.median),
            spread=f"{show(spread.min)} – {show(spread.max)}",
            spare=-1.0 if spread.max > 0 else 0.0,
            holds=self.holds,
        )


_FANOUT = (
    "about 40 % of a delivery is the kernel's, as much as all of nginx's; most of the rest is the server's own `send` "
    "and a step of the reader's task"
)
_ENDLESS = (
    "checking an event, giving it an offset and encoding it take most of the time; FastAPI's own time varies more "
    "between machines"
)
_SOCKETS = (
    "each reader has its own place in the log, its own bounds and its own encoder; a loop over sockets has none of "
    "these"
)
_DELIVERY = (
    "Redis runs a script that checks and stores the event before publishing it, which takes about twice the CPU of a "
    "PUBLISH alone; the publisher shares a core with it here"
)
_MEMORY = "the server's objects and the framework's frames take most of it; tailrace's own share is 1.1 KB"
_WRAPPERS = ", with the framework's three wrappers around it"
_TASKS = "each event passes from the producer's task to the connection's; a bare response needs only one task"
_PACED = f"{_TASKS}; at this load the bare response fills the core, too"
_SATURATED = "the core is saturated; the same pace with 400 streams is below"
_CHAT = (
    "each chunk is also timed, counted and kept for the store; at this load the core is saturated, and 300 replies are "
    "below"
)
_PACKETS = "a third of the time is reading, making and encoding the packets, which an echo of text does not do"
_PACKETS_SOCKET = (
    "the server's WebSocket alone takes as long as an echo, and the floor leaves less than half as much again for the "
    "rest; reading, making and encoding the packets take all of that, and the session, its logs and the POSTs come on "
    "top"
)
_WORKERS = (
    "each piece of a reply is a command to Redis, whose reply the worker merges into its copy; one worker in memory "
    "only appends it"
)
_SHAPES = ("ids_us", "bare_us", "named_us", "lines_us", "chunks_us")
_KEPT = (
    "the garbage collector, which examines the 100,000 kept events again and again, takes a third of the time; "
    "decoding the text and making one object per event take the rest"
)
_JSON = "most of the time is the JSON of the chunks, which pydantic_core reads twice as fast as Python's json"
_PIECES = "httpx, from which both read, takes a third of the time, and each piece passes from it to the core and back"
_APPEND = "the script in Redis checks the incarnation, the end and the writer, and keeps the batch"
_MIRROR = (
    "each message is split and compared with what came before, and its event is kept for all readers of the process; "
    "the kernel's part of a message is the same for both"
)


def _decoding(scenario: str, metric: str, limit: float, holds: str = "") -> RatioFloor:
    return RatioFloor(scenario, metric, limit, peer=TAILRACE_DECODER, rival=HTTPX_SSE_DECODER, less=True, holds=holds)


FLOORS: tuple[Floor, ...] = (
    RatioFloor("throughput", "cpu_us", 20, rival=FASTAPI, less=True, holds=_ENDLESS),
    RatioFloor("throughput", "cpu_us", 6, rival=SSE_STARLETTE, less=True),
    RatioFloor("throughput", "cpu_us", 3, rival=BARE, less=True, holds=_ENDLESS),
    RatioFloor("fanout", "cpu_us", 12, rival=FASTAPI, less=True),
    RatioFloor("fanout", "cpu_us", 3, rival=SSE_STARLETTE, less=True),
    RatioFloor("fanout", "cpu_us", 1.7, rival=NCHAN, holds=_FANOUT + _WRAPPERS),
    RatioFloor("fanout", "cpu_us", 1.4, peer=TAILRACE_ASGI, rival=NCHAN, holds=_FANOUT),
    RatioFloor("fanout-sockets", "cpu_us", 1, rival=SOCKETS, holds=_SOCKETS),
    RatioFloor("fanout-room", "cpu_us", 1, peer=ROOMS, rival=SOCKETS, holds=_SOCKETS),
    RatioFloor("fanout-room-sse", "cpu_us", 1.7, peer=ROOMS, rival=NCHAN, holds=_FANOUT),
    # At least 0.8 times as fast.
    RatioFloor("fanout-second", "cpu_us", 1.25, peer=TAILRACE_REDIS, rival=TAILRACE),
    Floor("reconnect-storm", "connections", 3, peer=WORKER_KILLED),
    Floor("memory", "rss_kb", 22, holds=_MEMORY),
    Floor("memory", "rss_kb", 12, peer=TAILRACE_ASGI, holds=_MEMORY),
    RatioFloor("paced", "cpu_us", 1.25, rival=BARE, holds=_PACED),
    Floor("paced", "p99_ms", 50, holds=_SATURATED),
    # The same at a load that no core is saturated by.
    RatioFloor("paced-light", "cpu_us", 1.25, rival=BARE, holds=_TASKS),
    Floor("paced-light", "p99_ms", 50),
    RatioFloor("packets", "rate", 0.7, peer=PACKETS, rival=ECHO, holds=_PACKETS),
    RatioFloor("packets", "rate", 0.7, peer=PACKETS_SOCKET, rival=ECHO, holds=_PACKETS_SOCKET),
    RatioFloor("download", "cpu_us", 5, peer=TAILRACE_FILE, rival=FILE_LOOP, less=True),
    RatioFloor("download", "cpu_us", 1, peer=TAILRACE_FILE, rival=STARLETTE_FILE),
    RatioFloor("redis-publish-1", "rate", 0.75, peer=TAILRACE_BUS, rival=REDIS_PY, holds=_APPEND),
    RatioFloor("redis-publish-16", "rate", 0.5, peer=TAILRACE_BUS, rival=REDIS_PY, holds=_APPEND),
    RatioFloor("redis-publish-16", "rate", 1, peer=TAILRACE_BUS, rival=REDIS_PY_EACH, holds=_APPEND),
    RatioFloor("redis-publish-256", "rate", 0.5, peer=TAILRACE_BUS, rival=REDIS_PY, holds=_APPEND),
    RatioFloor("redis-publish-256", "rate", 1, peer=TAILRACE_BUS, rival=REDIS_PY_EACH, holds=_APPEND),
    *(
        RatioFloor("redis-deliver", metric, 1, peer=TAILRACE_BUS, rival=rival, holds=_DELIVERY)
        for metric in ("median_ms", "cpu_us")
        for rival in (BROADCASTER, SOCKETIO_REDIS, RESUMABLE_STREAM)
    ),
    RatioFloor("redis-receive", "cpu_us", 3, peer=TAILRACE_BUS, rival=REDIS_PY, less=True, holds=_MIRROR),
    *(NoneFloor("redis-cut", metric, peer=TAILRACE_BUS) for metric in ("lost", "away", "doubled")),
    RatioFloor("chat", "cpu_us", 1.5, peer=CHAT, rival=BARE_CHAT, holds=_CHAT),
    RatioFloor("chat-light", "cpu_us", 1.5, peer=CHAT, rival=BARE_CHAT),
    Floor("chat-first", "new_ms", 5, peer=LONG_SESSIONS),
    Floor("chat-first", "long_ms", 5, peer=LONG_SESSIONS),
    # "Unchanged" is what cannot be told from the noise between two runs of the same server.
    RatioFloor("chat-stored", "list_ms", 1.1, peer=MANY_SESSIONS, rival=FEW_SESSIONS),
    RatioFloor("chat-stored", "first_ms", 1.1, peer=MANY_SESSIONS, rival=FEW_SESSIONS),
    RatioFloor("chat-workers", "possible", 1.7, peer=TWO_WORKERS, rival=ONE_WORKER, holds=_WORKERS),
    *(_decoding("decoding", metric, 3, _KEPT) for metric in _SHAPES),
    *(_decoding("decoding-json", metric, 3, _JSON if metric == "chunks_us" else "") for metric in _SHAPES),
    *(_decoding("decoding-live", metric, 1.5) for metric in _SHAPES),
    RatioFloor("reading", "cpu_us", 3, peer=TAILRACE_TAIL, rival=OPENAI, less=True),
    RatioFloor("reading", "cpu_us", 1.5, peer=TAILRACE_TAIL, rival=HTTPX_SSE, less=True),
    RatioFloor("reading", "live_us", 1.1, peer=TAILRACE_TAIL, rival=HTTPX_SSE, holds=_PIECES),
    RatioFloor("reading", "async_us", 1.5, peer=TAILRACE_TAIL, rival=HTTPX_SSE, less=True),
    RatioFloor("reading", "async_live_us", 1.1, peer=TAILRACE_TAIL, rival=HTTPX_SSE, holds=_PIECES),
    RatioFloor("rendering", "cpu_ms", 20, peer=TAILRACE_TERMINAL, rival=RICH_LIVE, less=True),
    # 0.6 s on a machine that needs 0.3 s for the import.
    RatioFloor("prompt", "start_ms", 2, peer=TAILRACE_PROMPT, rival=IMPORTS),
)


def verdicts(results: Results) -> list[Verdict]:
    return [verdict for floor in FLOORS if (verdict := floor.judge(results))]

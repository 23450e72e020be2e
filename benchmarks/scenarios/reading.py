"""From a response to values, by the whole of a client."""

from benchmarks.peers import HTTPX_SSE, OPENAI, TAILRACE_TAIL, Peer
from benchmarks.process import ROOT
from benchmarks.programs import sample_of
from benchmarks.scenarios.base import Metric, Sample, Scenario

CHUNKS = 20_000
QUICK = 2_000


def measure(peer: Peer, quick: bool) -> Sample:
    return sample_of([*peer.command(0, ROOT), str(QUICK if quick else CHUNKS)])


READING = Scenario(
    name="reading",
    title="Reading the chunks of a reply with a client",
    about=f"A reply of {CHUNKS:,} chunks as OpenAI's servers write them, from a response in memory to the text of "
    "each: in pieces of 64 KiB, and with a piece for each chunk; without asyncio and with it. User CPU time. `tail()` "
    "and httpx-sse give the JSON as dicts, the OpenAI SDK gives it as pydantic models. `tail()` would "
    "resume after a lost connection; the others end.",
    peers=(HTTPX_SSE, OPENAI, TAILRACE_TAIL),
    metrics=(
        Metric("cpu_us", "CPU per chunk", "µs", 2, plotted=True),
        Metric("live_us", "CPU per chunk, a piece for each", "µs", 2),
        Metric("async_us", "CPU per chunk, asyncio", "µs", 2),
        Metric("async_live_us", "CPU per chunk, asyncio, a piece for each", "µs", 2),
    ),
    measure=measure,
    own=TAILRACE_TAIL,
)

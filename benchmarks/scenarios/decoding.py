"""From the bytes of an event stream to events."""

from benchmarks.peers import HTTPX_SSE_DECODER, OPENAI_DECODER, TAILRACE_DECODER, Peer
from benchmarks.process import ROOT
from benchmarks.programs import sample_of
from benchmarks.scenarios.base import Metric, Sample, Scenario

EVENTS = 100_000
QUICK = 5_000


def measure(peer: Peer, quick: bool) -> Sample:
    return sample_of([*peer.command(0, ROOT), str(QUICK if quick else EVENTS)])


DECODING = Scenario(
    name="decoding",
    title=f"Decoding {EVENTS:,} events of SSE",
    about=f"The decoders alone, fed from memory: {EVENTS:,} events with an id and a value of JSON, in pieces of "
    "64 KiB, as they are read when they are there already; the same number of chunks as OpenAI's "
    "servers write them; and "
    "the first ones again with a piece for each event, as they are read when they come one by one. User CPU time, "
    "the median of five times in each round. The data of an event stays text.",
    peers=(HTTPX_SSE_DECODER, OPENAI_DECODER, TAILRACE_DECODER),
    metrics=(
        Metric("cpu_us", "CPU per event", "µs", 2, plotted=True),
        Metric("chunk_us", "CPU per event, OpenAI's chunks", "µs", 2),
        Metric("live_us", "CPU per event, a piece for each", "µs", 2),
    ),
    measure=measure,
    own=TAILRACE_DECODER,
)

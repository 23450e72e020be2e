"""From the bytes of an event stream to events."""

from functools import partial

from benchmarks.peers import (
    EVENTSOURCE_PARSER,
    HTTPX_SSE_DECODER,
    OPENAI_DECODER,
    TAILRACE_DECODER,
    TAILRACE_JS_DECODER,
    Peer,
)
from benchmarks.process import ROOT
from benchmarks.programs import sample_of
from benchmarks.scenarios.base import Metric, Sample, Scenario

EVENTS = 100_000
QUICK = 5_000

SHAPES = (
    Metric("ids_us", "with ids", "µs", 2, plotted=True),
    Metric("bare_us", "bare data", "µs", 2),
    Metric("named_us", "with names", "µs", 2),
    Metric("lines_us", "data of three lines", "µs", 2),
    Metric("chunks_us", "OpenAI's chunks", "µs", 2),
)

MEASURED = (
    "User CPU time of the decoders alone for an event, fed from memory: events with an id as tailrace writes them, "
    "with nothing but data, with a name, with data in three lines, and the chunks of OpenAI's servers. "
)


def measure(way: str, peer: Peer, quick: bool) -> Sample:
    return sample_of([*peer.command(0, ROOT), str(QUICK if quick else EVENTS), way])


def scenario(name: str, way: str, title: str, about: str) -> Scenario:
    return Scenario(
        name=name,
        title=title,
        about=MEASURED + about,
        peers=(HTTPX_SSE_DECODER, OPENAI_DECODER, TAILRACE_DECODER),
        metrics=SHAPES,
        measure=partial(measure, way),
        own=TAILRACE_DECODER,
    )


DECODING = scenario(
    "decoding",
    "text",
    f"Decoding {EVENTS:,} events of SSE",
    "They come in pieces of 64 KiB, as when all of them are there already. The data of an event stays text.",
)
DECODING_JSON = scenario(
    "decoding-json",
    "json",
    f"Decoding {EVENTS:,} events of SSE and their JSON",
    "They come in pieces of 64 KiB, and the data of each becomes a value: by `event.json()` of the others, which is "
    "Python's json.",
)
DECODING_LIVE = scenario(
    "decoding-live",
    "live",
    f"Decoding {EVENTS:,} events of SSE and their JSON, a piece for each",
    "They come one by one, as they are read when each is sent by itself, and the data of each becomes a value.",
)


def measure_in_node(peer: Peer, quick: bool) -> Sample:
    return sample_of([*peer.command(0, ROOT), str(QUICK if quick else EVENTS)])


DECODING_JS = Scenario(
    name="decoding-js",
    title=f"Decoding {EVENTS:,} events of SSE and their JSON in Node",
    about="User CPU time of the decoders alone for an event, from bytes in memory to a list of events with the value "
    "of their data: events with an id as tailrace writes them in pieces of 64 KiB, the same with a piece for each, "
    "events with nothing but data, and with a name. The minimum of 15 runs, because JavaScript's compiler needs some "
    "to warm up.",
    peers=(EVENTSOURCE_PARSER, TAILRACE_JS_DECODER),
    metrics=(
        Metric("ids_us", "with ids", "µs", 3, plotted=True),
        Metric("live_us", "a piece for each", "µs", 3),
        Metric("bare_us", "bare data", "µs", 3),
        Metric("named_us", "with names", "µs", 3),
    ),
    measure=measure_in_node,
    own=TAILRACE_JS_DECODER,
)

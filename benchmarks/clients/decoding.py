"""From bytes to events: `python -m benchmarks.clients.decoding PEER EVENTS WAY`."""

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.clients.stream import backlog, bare, chunks, in_lines, named, readings
from benchmarks.clients.usage import user_seconds

REPEAT = 3

SHAPES = {"ids_us": readings, "bare_us": bare, "named_us": named, "lines_us": in_lines, "chunks_us": chunks}

# Each is given pieces, makes every event of them, and keeps the data of the events if there is a list for it.
Decode = Callable[[Iterable[bytes], list[Any] | None], None]


def tailrace(as_json: bool) -> Decode:
    from tailrace.client.sorting import decoder_for
    from tailrace.wire.sse import SSEDecoder

    def decode(pieces: Iterable[bytes], kept: list[Any] | None) -> None:
        decoder = decoder_for("text/event-stream", 1 << 20, has_cursors=False) if as_json else SSEDecoder()
        for piece in pieces:
            for frame in decoder.feed(piece):
                data = frame.data
                if kept is not None:
                    kept.append(data)

    return decode


def httpx_sse(as_json: bool) -> Decode:
    # Its two decoders alone, used as its EventSource does, without the response that they are read from.
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    def decode(pieces: Iterable[bytes], kept: list[Any] | None) -> None:
        texts, lines, decoder = codecs.getincrementaldecoder("utf-8")(), SSELineDecoder(), SSEDecoder()
        for piece in pieces:
            for line in lines.decode(texts.decode(piece)):
                event = decoder.decode(line.rstrip("\n"))
                if event is not None:
                    data = event.json() if as_json else event.data
                    if kept is not None:
                        kept.append(data)

    return decode


def openai(as_json: bool) -> Decode:
    from openai._streaming import SSEDecoder

    def decode(pieces: Iterable[bytes], kept: list[Any] | None) -> None:
        for event in SSEDecoder().iter_bytes(iter(pieces)):
            data = event.json() if as_json else event.data
            if kept is not None:
                kept.append(data)

    return decode


PEERS = {"tailrace-decoder": tailrace, "httpx-sse-decoder": httpx_sse, "openai-decoder": openai}


def main() -> None:
    peer, count, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    as_json, is_live = way != "text", way == "live"
    decode = PEERS[peer](as_json)
    sample: dict[str, float] = {}
    for metric, shape in SHAPES.items():
        check(decode, shape(10_000), as_json)
        events = shape(count)
        pieces = events if is_live else backlog(events)
        sample[metric] = user_seconds(partial(decode, pieces, None), repeat=REPEAT) / count * 1e6
    print(json.dumps(sample))


def check(decode: Decode, events: Sequence[bytes], as_json: bool) -> None:
    """Both ways: a fast decoder of wrong events must not win."""
    texts = [text_of(event) for event in events]
    expected = [json.loads(text) for text in texts] if as_json else texts
    for pieces in (backlog(events), events):
        got: list[Any] = []
        decode(pieces, got)
        if got != expected:
            raise SystemExit(f"expected the data of {len(events)} events, but got {len(got)}: {got[:3]}")


def text_of(event: bytes) -> str:
    return "\n".join(line[6:] for line in event.decode().split("\n") if line.startswith("data: "))


if __name__ == "__main__":
    main()

"""From bytes to events: `python -m benchmarks.clients.decoding PEER EVENTS`."""

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from benchmarks.clients.stream import backlog, chunks, readings
from benchmarks.clients.usage import user_seconds

REPEAT = 5

# Each is given pieces, makes every event of them, and keeps the data of the events if there is a list for it.
Decode = Callable[[Iterable[bytes], list[str] | None], None]


def tailrace() -> Decode:
    from tailrace.wire.sse import SSEDecoder

    def decode(pieces: Iterable[bytes], kept: list[str] | None) -> None:
        decoder = SSEDecoder()
        for piece in pieces:
            for frame in decoder.feed(piece):
                if kept is not None:
                    kept.append(frame.data)

    return decode


def httpx_sse() -> Decode:
    # Its two decoders alone, without the response that they are read from.
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    def decode(pieces: Iterable[bytes], kept: list[str] | None) -> None:
        texts, lines, decoder = codecs.getincrementaldecoder("utf-8")(), SSELineDecoder(), SSEDecoder()
        for piece in pieces:
            for line in lines.decode(texts.decode(piece)):
                event = decoder.decode(line)
                if event is not None and kept is not None:
                    kept.append(event.data)

    return decode


def openai() -> Decode:
    from openai._streaming import SSEDecoder

    def decode(pieces: Iterable[bytes], kept: list[str] | None) -> None:
        for event in SSEDecoder().iter_bytes(iter(pieces)):
            if kept is not None:
                kept.append(event.data)

    return decode


PEERS = {"tailrace-decoder": tailrace, "httpx-sse-decoder": httpx_sse, "openai-decoder": openai}


def main() -> None:
    peer, count = sys.argv[1], int(sys.argv[2])
    decode = PEERS[peer]()
    ways = {"cpu_us": backlog(readings(count)), "chunk_us": backlog(chunks(count)), "live_us": readings(count)}
    check(decode, readings(10_000))
    check(decode, chunks(10_000))
    print(
        json.dumps(
            {
                metric: user_seconds(partial(decode, pieces, None), repeat=REPEAT) / count * 1e6
                for metric, pieces in ways.items()
            }
        )
    )


def check(decode: Decode, events: Sequence[bytes]) -> None:
    """Both ways: a fast decoder of wrong events must not win."""
    expected = [event.partition(b"data: ")[2].strip().decode() for event in events]
    for pieces in (backlog(events), events):
        got: list[str] = []
        decode(pieces, got)
        if got != expected:
            raise SystemExit(f"expected the data of {len(events)} events, but got {len(got)}: {got[:3]}")


if __name__ == "__main__":
    main()

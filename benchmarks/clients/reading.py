"""From a response to the texts of a reply: `python -m benchmarks.clients.reading PEER CHUNKS`.

The response comes from memory, so that all peers get the same pieces.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.clients.stream import backlog, chunks
from benchmarks.clients.usage import user_seconds

# Only one HTTP library is loaded, that of the peer.
if TYPE_CHECKING:
    import httpx

URL = "http://memory"
HEADERS = {"Content-Type": "text/event-stream"}
END = b"data: [DONE]\n\n"

Read = Callable[[Iterable[bytes]], Iterator[str]]
"""From pieces to the texts of a reply."""


def tailrace() -> Read:
    from tailrace.client import tail

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        with in_memory(pieces) as client, tail(URL, client=client) as events:
            for event in events:
                yield event.data["choices"][0]["delta"]["content"]

    return read


def httpx_sse() -> Read:
    from httpx_sse import connect_sse

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        with in_memory(pieces) as client, connect_sse(client, "GET", URL) as source:
            for event in source.iter_sse():
                if event.data != "[DONE]":
                    yield event.json()["choices"][0]["delta"]["content"]

    return read


def openai() -> Read:
    import httpx2
    from openai import OpenAI

    class Pieces(httpx2.SyncByteStream):
        def __init__(self, pieces: Iterable[bytes]) -> None:
            self._pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            yield from self._pieces

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=HEADERS, stream=Pieces(pieces)))
        with OpenAI(api_key="none", base_url=URL, http_client=httpx2.Client(transport=transport)) as client:
            stream = client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "long"}], stream=True
            )
            for chunk in stream:
                yield chunk.choices[0].delta.content or ""

    return read


def in_memory(pieces: Iterable[bytes]) -> "httpx.Client":
    import httpx

    class Pieces(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces

    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=HEADERS, stream=Pieces())))


PEERS = {"tailrace-tail": tailrace, "httpx-sse": httpx_sse, "openai": openai}


def main() -> None:
    peer, count = sys.argv[1], int(sys.argv[2])
    read = PEERS[peer]()
    events = [*chunks(count), END]
    ways = {"cpu_us": backlog(events), "live_us": events}
    check(read, 1_000)
    print(
        json.dumps(
            {metric: user_seconds(partial(consume, read, pieces)) / count * 1e6 for metric, pieces in ways.items()}
        )
    )


def consume(read: Read, pieces: Iterable[bytes]) -> None:
    for _ in read(pieces):
        pass


def check(read: Read, count: int) -> None:
    """Both ways, and to the end."""
    events = [*chunks(count), END]
    expected = [f" word {number}" for number in range(count)]
    for pieces in (backlog(events), events):
        got = list(read(pieces))
        if got != expected:
            raise SystemExit(f"expected the texts of {count} chunks, but got {len(got)}: {got[:3]}")


if __name__ == "__main__":
    main()

"""From a response to the texts of a reply: `python -m benchmarks.clients.reading PEER CHUNKS`.

The response comes from memory, so that all peers get the same pieces.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
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
ReadAsync = Callable[[Iterable[bytes]], AsyncIterator[str]]


def tailrace() -> tuple[Read, ReadAsync]:
    from tailrace.client import tail

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        with in_memory(pieces) as client, tail(URL, client=client) as events:
            for event in events:
                yield event.data["choices"][0]["delta"]["content"]

    async def read_async(pieces: Iterable[bytes]) -> AsyncIterator[str]:
        async with in_memory_async(pieces) as client, tail(URL, client=client) as events:
            async for event in events:
                yield event.data["choices"][0]["delta"]["content"]

    return read, read_async


def httpx_sse() -> tuple[Read, ReadAsync]:
    from httpx_sse import aconnect_sse, connect_sse

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        with in_memory(pieces) as client, connect_sse(client, "GET", URL) as source:
            for event in source.iter_sse():
                if event.data != "[DONE]":
                    yield event.json()["choices"][0]["delta"]["content"]

    async def read_async(pieces: Iterable[bytes]) -> AsyncIterator[str]:
        async with in_memory_async(pieces) as client, aconnect_sse(client, "GET", URL) as source:
            async for event in source.aiter_sse():
                if event.data != "[DONE]":
                    yield event.json()["choices"][0]["delta"]["content"]

    return read, read_async


def openai() -> tuple[Read, ReadAsync]:
    import httpx2
    from openai import AsyncOpenAI, OpenAI

    class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __init__(self, pieces: Iterable[bytes]) -> None:
            self._pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            yield from self._pieces

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self._pieces:
                yield piece

    def transport(pieces: Iterable[bytes]) -> httpx2.MockTransport:
        return httpx2.MockTransport(lambda _: httpx2.Response(200, headers=HEADERS, stream=Pieces(pieces)))

    def read(pieces: Iterable[bytes]) -> Iterator[str]:
        client = httpx2.Client(transport=transport(pieces))
        with OpenAI(api_key="none", base_url=URL, http_client=client) as api:
            for chunk in api.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "long"}], stream=True
            ):
                yield chunk.choices[0].delta.content or ""

    async def read_async(pieces: Iterable[bytes]) -> AsyncIterator[str]:
        client = httpx2.AsyncClient(transport=transport(pieces))
        async with AsyncOpenAI(api_key="none", base_url=URL, http_client=client) as api:
            async for chunk in await api.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "long"}], stream=True
            ):
                yield chunk.choices[0].delta.content or ""

    return read, read_async


def in_memory(pieces: Iterable[bytes]) -> "httpx.Client":
    import httpx

    class Pieces(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces

    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=HEADERS, stream=Pieces())))


def in_memory_async(pieces: Iterable[bytes]) -> "httpx.AsyncClient":
    import httpx

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=HEADERS, stream=Pieces()))
    return httpx.AsyncClient(transport=transport)


PEERS = {"tailrace-tail": tailrace, "httpx-sse": httpx_sse, "openai": openai}


def main() -> None:
    peer, count = sys.argv[1], int(sys.argv[2])
    read, read_async = PEERS[peer]()
    check(read, read_async, 1_000)
    events = [*chunks(count), END]
    sample: dict[str, float] = {}
    for way, pieces in (("", backlog(events)), ("live_", events)):
        sample["live_us" if way else "cpu_us"] = user_seconds(partial(consume, read, pieces)) / count * 1e6
        sample[f"async_{way}us"] = user_seconds(partial(consume_async, read_async, pieces)) / count * 1e6
    print(json.dumps(sample))


def consume(read: Read, pieces: Iterable[bytes]) -> list[str]:
    return list(read(pieces))


def consume_async(read: ReadAsync, pieces: Iterable[bytes]) -> list[str]:
    async def to_the_end() -> list[str]:
        return [text async for text in read(pieces)]

    return asyncio.run(to_the_end())


def check(read: Read, read_async: ReadAsync, count: int) -> None:
    """All ways, and to the end."""
    events = [*chunks(count), END]
    expected = [f" word {number}" for number in range(count)]
    for pieces in (backlog(events), events):
        for got in (consume(read, pieces), consume_async(read_async, pieces)):
            if got != expected:
                raise SystemExit(f"expected the texts of {count} chunks, but got {len(got)}: {got[:3]}")


if __name__ == "__main__":
    main()

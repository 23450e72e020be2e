"""The bytes of an event stream, and the two ways in which they reach a client."""

from collections.abc import Sequence

READ = 64 * 1024
"""Bytes that httpx reads at once of a socket that has as many."""

READING = b'{"id":%d,"name":"sensor","value":3.25}'
CHUNK = (
    b'data: {"id":"chatcmpl-7f3a9c","object":"chat.completion.chunk","created":1767225600,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"content":" word %d"},"finish_reason":null}]}\n\n'
)


def readings(count: int) -> list[bytes]:
    """The events of the server scenarios, with ids as tailrace writes them."""
    return [b"id: k3J9xQ2mLp0.1.%d\ndata: %b\n\n" % (number, READING % number) for number in range(count)]


def bare(count: int) -> list[bytes]:
    """The same without ids."""
    return [b"data: %b\n\n" % (READING % number) for number in range(count)]


def named(count: int) -> list[bytes]:
    """The same with a name."""
    return [b"event: reading\ndata: %b\n\n" % (READING % number) for number in range(count)]


def in_lines(count: int) -> list[bytes]:
    """The same with data in three lines."""
    return [b"data: %b\n\n" % (READING % number).replace(b",", b",\ndata: ") for number in range(count)]


def chunks(count: int) -> list[bytes]:
    """A reply as OpenAI's servers write it, without its end."""
    return [CHUNK % number for number in range(count)]


def backlog(events: Sequence[bytes]) -> list[bytes]:
    """In pieces as they are read when everything is there already."""
    body = b"".join(events)
    return [body[start : start + READ] for start in range(0, len(body), READ)]

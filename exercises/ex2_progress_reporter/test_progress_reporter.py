"""Check exercise 2."""

import time
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

SSE = {"Accept": "text/event-stream"}


def read_events(response: Iterator[ServerSentEvent]) -> list[tuple[str, object]]:
    return [(event.event, event.json()) for event in response]


def test_each_page_is_reported(client: httpx.Client) -> None:
    with connect_sse(client, "POST", "/reports", json={"pages": 3}, headers=SSE) as source:
        events = read_events(source.iter_sse())
    assert events == [
        ("progress", {"done": 1, "of": 3}),
        ("progress", {"done": 2, "of": 3}),
        ("progress", {"done": 3, "of": 3}),
        ("result", {"size": 30}),
        ("done", {}),
    ]


def read_all(client: httpx.Client, pages: int) -> None:
    with connect_sse(client, "POST", "/reports", json={"pages": pages}, headers=SSE) as source:
        for _ in source.iter_sse():
            pass


def test_a_failure_does_not_look_like_success(client: httpx.Client) -> None:
    # The body is cut short after the error event.
    with pytest.raises(httpx.RemoteProtocolError):
        read_all(client, pages=20)


def test_a_reader_that_comes_back_gets_the_error(client: httpx.Client) -> None:
    with connect_sse(client, "POST", "/reports", json={"pages": 20}, headers=SSE) as source:
        address = source.response.headers["content-location"]
    assert wait_until_ended(client, address)["outcome"] == {
        "state": "error",
        "code": "printer",
        "message": "page 13 is out of paper",
    }


def test_a_reader_that_comes_back_misses_nothing(client: httpx.Client) -> None:
    with connect_sse(client, "POST", "/reports", json={"pages": 6}, headers=SSE) as source:
        address = source.response.headers["content-location"]
        first = next(source.iter_sse())
    assert first.json() == {"done": 1, "of": 6}
    with connect_sse(client, "GET", address, headers={**SSE, "Last-Event-ID": first.id}) as source:
        rest = read_events(source.iter_sse())
    assert rest[0] == ("progress", {"done": 2, "of": 6})
    assert rest[-2:] == [("result", {"size": 60}), ("done", {})]
    assert len(rest) == 7


def wait_until_ended(client: httpx.Client, address: str) -> dict[str, object]:
    """Return the document of a stream that has ended. Until then, it has a cursor."""
    deadline = time.monotonic() + 10
    while "cursor" in (document := client.get(address, headers={"Accept": "application/json"}).json()):
        assert time.monotonic() < deadline, document
    assert isinstance(document, dict)
    return document

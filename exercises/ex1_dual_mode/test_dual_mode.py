"""Check exercise 1."""

import itertools

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

SSE = {"Accept": "text/event-stream"}


def read_events(client: httpx.Client, headers: dict[str, str], **params: str | int) -> list[ServerSentEvent]:
    with connect_sse(client, "GET", "/squares", params=params, headers=headers) as source:
        return list(source.iter_sse())


def test_a_document_is_the_default(client: httpx.Client) -> None:
    response = client.get("/squares", params={"n": 3})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"data": [1, 4, 9]}


def test_accept_asks_for_a_stream(client: httpx.Client) -> None:
    events = read_events(client, SSE, n=3)
    assert [event.data for event in events[:-1]] == ["1", "4", "9"]
    assert events[-1].event == "done"


def test_the_query_asks_for_a_stream(client: httpx.Client) -> None:
    events = read_events(client, {"Accept": "*/*"}, n=2, stream="true")
    assert [event.data for event in events[:-1]] == ["1", "4"]


@pytest.mark.parametrize(
    ("accept", "stream"),
    [("text/event-stream", "false"), ("text/event-stream;q=0.2, application/json", None)],
)
def test_a_client_that_prefers_a_document_gets_one(client: httpx.Client, accept: str, stream: str | None) -> None:
    params = {"n": "3"} if stream is None else {"n": "3", "stream": stream}
    response = client.get("/squares", params=params, headers={"Accept": accept})
    assert response.json() == {"data": [1, 4, 9]}


def test_squares_arrive_as_they_are_found(client: httpx.Client) -> None:
    with connect_sse(client, "GET", "/squares", params={"n": 1_000_000_000}, headers=SSE) as source:
        first = [event.data for event in itertools.islice(source.iter_sse(), 3)]
    assert first == ["1", "4", "9"]

"""Decodes a peer's whole answer before it is measured: a fast server of wrong events must not win."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

from benchmarks.client import CONNECT_TIMEOUT, Undelivered
from benchmarks.process import Address

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


def verify(address: Address, path: str, accept: str, count: int) -> None:
    """Check that the path answers exactly the events 0 to count - 1, in order."""
    connection = http.client.HTTPConnection(*address, timeout=CONNECT_TIMEOUT)
    connection.request("GET", path, headers={"Accept": accept})
    body = connection.getresponse().read().decode()
    connection.close()
    decode = decode_sse if accept == EVENT_STREAM else decode_lines
    got = [reading for reading in decode(body) if is_reading(reading)]
    if got != [{"id": id, "name": "sensor", "value": 3.25} for id in range(count)]:
        raise Undelivered(f"expected the events 0 to {count - 1} of {path}, but got {len(got)}: {body[:400]!r}")


def decode_sse(body: str) -> Iterator[Any]:
    for line in body.splitlines():
        if line.startswith("data:"):
            yield decode(line[5:])


def decode_lines(body: str) -> Iterator[Any]:
    for line in body.splitlines():
        value = decode(line)
        # A line may carry the reading itself or an envelope around it.
        yield value["data"] if isinstance(value, dict) and "data" in value else value


def decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_reading(value: Any) -> bool:
    """Tell readings from the notices a wire adds, such as its end."""
    return isinstance(value, dict) and value.get("name") == "sensor"

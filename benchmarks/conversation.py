"""The client of the chat scenarios: what is asked, what has to come, and how long its first piece takes."""

import http.client
import json
import time
from typing import Any

from benchmarks.client import CONNECT_TIMEOUT, Undelivered
from benchmarks.process import Address
from benchmarks.verify import NDJSON
from tailrace.chat.models.base import Message
from tailrace.chat.models.demo import compose, cut

PATH = "/chat/stream"
MARKER = b'"type":"chunk"'
"""Every chunk of a reply carries this once, and nothing else does: in a text the quotes would be escaped."""


def reply_to(message: str) -> str:
    """What the demo model answers to the first message of a session."""
    return compose([Message("user", message)])


def count_chunks(message: str, words: float) -> int:
    """How many chunks a reply has, the empty last one included."""
    return len(list(cut(reply_to(message), words))) + 1


class Conversation:
    """One kept connection, on which each thing is asked after the one before was read to its end."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=CONNECT_TIMEOUT)
        self._connection.connect()

    def close(self) -> None:
        self._connection.close()

    def first_chunk(self, message: str, session_id: str | None = None) -> float:
        """Seconds from a message to the first chunk of its reply."""
        start = time.perf_counter()
        response = self._ask(message, session_id)
        while MARKER not in (line := response.readline()):
            if not line:
                raise Undelivered("expected a chunk, but the reply ended before there was one")
        elapsed = time.perf_counter() - start
        check_end(response.read().splitlines()[-1])
        return elapsed

    def page(self, path: str) -> float:
        """Seconds from a GET to the whole of its answer."""
        start = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        response.read()
        if response.status != 200:
            raise Undelivered(f"expected {path} to be answered with 200, but got {response.status}")
        return time.perf_counter() - start

    def verify(self, message: str) -> None:
        """Check that a new session gets the whole reply of the demo model, and an end that says so."""
        *_, last = lines = self._ask(message).read().splitlines()
        check_end(last)
        objects: list[dict[str, Any]] = [json.loads(line) for line in lines]
        text = "".join(item["text"] for item in objects if item["type"] == "chunk")
        if text != reply_to(message):
            raise Undelivered(f"expected the reply to {message!r}, but got {text[:200]!r}")

    def _ask(self, message: str, session_id: str | None = None) -> http.client.HTTPResponse:
        body = json.dumps({"message": message, "session_id": session_id}).encode()
        self._connection.request("POST", PATH, body, {"Content-Type": "application/json", "Accept": NDJSON})
        response = self._connection.getresponse()
        if response.status != 200:
            raise Undelivered(f"expected a reply, but got status {response.status}: {response.read()[:200]!r}")
        return response


def check_end(line: bytes) -> None:
    if json.loads(line)["type"] != "complete":
        raise Undelivered(f"expected a reply to end with `complete`, but got {line[:200]!r}")

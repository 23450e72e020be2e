"""The decoders in JavaScript read what the table of cases in tests/wire says, however it is cut."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tailrace import DecodeError, Frame
from tailrace.wire.base import Decoder
from tailrace.wire.ndjson import LinesDecoder, NDJSONDecoder
from tailrace.wire.sse import ONLY_RETRY, SSEDecoder, SSEJSONDecoder
from tests.js.driving import run_tests
from tests.wire import test_base, test_ndjson, test_sse
from tests.wire.cases import byte_by_byte, read_until_error

DECODERS: dict[str, Any] = {
    "text": SSEDecoder,
    "events": lambda max_bytes: SSEJSONDecoder(max_bytes=max_bytes, strict=False),
    "values": LinesDecoder,
    "lines": lambda max_bytes: NDJSONDecoder(max_bytes=max_bytes, strict=False),
}
"""The decoders in Python, by the names that decoders.test.js has for them."""

LIMIT = 64


def row(title: str, decoder: str, stream: bytes, *, limit: int = 1 << 20) -> dict[str, Any]:
    """A row of the table: bytes, and what the decoder in Python makes of them."""
    python: Decoder = DECODERS[decoder](max_bytes=limit)
    frames, error = read_until_error(python, byte_by_byte(stream))
    return {
        "title": f"{decoder}: {title}",
        "decoder": decoder,
        "stream": b64encode(stream).decode(),
        "limit": limit,
        "frames": [spelled(frame) for frame in frames],
        "error": None if error is None else type(error).__name__,
    }


def spelled(frame: Frame) -> dict[str, Any]:
    """A frame as JSON. JavaScript has no data where only a delay came."""
    named = {"event": frame.event, "id": frame.id, "retry": frame.retry}
    is_bare = frame.data is ONLY_RETRY or (frame.data is None and frame.retry is not None)
    return named if is_bare else {"data": frame.data, **named}


def of_the_table() -> Iterator[dict[str, Any]]:
    for name, case in test_sse.CASES.items():
        yield row(name, "events", case.spelled)
        for line_end in (b"\r", b"\r\n"):
            yield row(f"{name}, {line_end!r}", "events", b"\xef\xbb\xbf" + case.spelled.replace(b"\n", line_end))
        for garbage in (b"\0", b"id: x", b"data: cut", b"\xff\xfe", b"data: cut\n", b": ping\n", b"\n", b"\r"):
            yield row(f"{name}, then {garbage!r}", "events", case.spelled + garbage)
    for name, (stream, _) in test_sse.STREAMS.items():
        yield row(name, "text", stream)
    for name, case in test_ndjson.CASES.items():
        yield row(name, "lines", case.spelled)
        yield row(f"{name}, without an end", "lines", case.spelled.removesuffix(b"\n"))
        yield row(f"{name}, with blank lines", "lines", case.spelled.replace(b"\n", b"\n\n\r\n \n"))
        for garbage in (b"\0", b"{", b'{"id":"s1.e1.9","da', b"<html>", b'"cut', b"nul", b"{}x"):
            yield row(f"{name}, then {garbage!r}", "lines", case.spelled + garbage)


def of_any_server() -> Iterator[dict[str, Any]]:
    for text in ("[1]", "[1", "word", "null", "", "1 2", "nul", "-", '"a', "[DONE]", " {}", "\u2028"):
        yield row(f"data {text!r}", "events", f"data: {text}\n\n".encode())
    yield row("a delay alone", "events", b"retry: 5\n\ndata: null\n\n")
    for line in (b"1", b"null", b'{"id":"1"}', b'{"data":1,"id":1}', b'{"a":{"b":[]}}', b"<html>", b'{"data":1}}'):
        for decoder in ("values", "lines"):
            yield row(repr(line), decoder, b"\n2\n" + line + b"\n3\n")
    for value, _ in test_base.ANY_VALUES:
        yield row(repr(value), "lines", json.dumps(value).encode() + b"\n")


def of_the_bounds() -> Iterator[dict[str, Any]]:
    for size in (LIMIT - 1, LIMIT, LIMIT + 1):
        data = b"data: " + b"x" * (size - len(b"data: \n")) + b"\n"
        for before in (b"", b": a comment that is no part of it\n" * 9, b"\n\n\n"):
            yield row(
                f"{size} bytes after {before[:3]!r}", "events", b"data: 1\n\n" + before + data + b"\n", limit=LIMIT
            )
        yield row(
            f"{size} bytes", "lines", b'{"data":"%b"}' % (b"x" * (size - len(b'{"data":""}'))) + b"\n", limit=LIMIT
        )
    for end in (b"", b"\n", b"\n\n"):
        yield row(f"a line too large, {end!r}", "events", b"data: " + b"x" * 2 * LIMIT + end, limit=LIMIT)
        yield row(f"a line too large, {end!r}", "lines", b"1\n" + b"2" * 2 * LIMIT + end, limit=LIMIT)
    yield row("too many lines", "events", b"data: 1\n\n" + b"data: x\n" * LIMIT + b"\n", limit=LIMIT)
    yield row("many events", "events", b"data: x\n\n" * LIMIT, limit=LIMIT)
    yield row("endless comments", "events", b": ping\n" * LIMIT + b": no line end" * LIMIT, limit=LIMIT)


def at_random(seed: int = 13, times: int = 300) -> Iterator[dict[str, Any]]:
    chance = random.Random(seed)
    lines = [
        b"data: x",
        b"data",
        b"data:[1]",
        b"id: 1",
        b"id: \0",
        b"event: \xc3\xa9",
        b": c",
        b"retry: 5",
        b"",
        b"\xff",
    ]
    for number in range(times):
        chosen = chance.choices(lines, k=chance.randrange(20))
        stream = b"".join(line + chance.choice([b"\n", b"\r", b"\r\n"]) for line in chosen)
        yield row(f"random {number}", "text", stream)
        yield row(f"random bytes {number}", "text", chance.randbytes(chance.randrange(60)))


def test_both_languages_read_the_same(tmp_path: Path) -> None:
    sources: Iterable[Iterator[dict[str, Any]]] = (of_the_table(), of_any_server(), of_the_bounds(), at_random())
    rows = [row for source in sources for row in source]
    assert {row["error"] for row in rows} == {None, "FrameTooLarge", "DecodeError", "Truncated"}
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps(rows))
    run_tests("decoders", CASES=str(cases))


def test_a_decode_error_keeps_what_came_before_it() -> None:
    """The rows say so of JavaScript; here is the same of Python, which the rows are made by."""
    frames, error = read_until_error(LinesDecoder(), [b"1\nx\n"])
    assert isinstance(error, DecodeError)
    assert (frames, list(error.before)) == ([], [Frame(1)])

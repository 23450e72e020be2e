from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tailrace.chat.journal import EXCERPT, Journal, LogChunks, excerpt_of, printable, request_id, without_secrets
from tailrace.chat.store import Turn

TURN = Turn(
    number=1,
    session_id="5f8a3f52-0c65-4b8e-9dcb-0e3f7a2f8c11",
    stream_id="x-xYspixCHCBXPbIMxxumA",
    idempotency_key=None,
    message="What is\na log?",
    model="demo",
    created=0.0,
)


@pytest.fixture(autouse=True)
def _request(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, logger="tailrace.chat")
    token = request_id.set("the-request")
    yield
    request_id.reset(token)


def the_record(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = caplog.records
    said = vars(record)
    assert {name: said[name] for name in ("name", "request_id", "session_id", "stream_id")} == {
        "name": "tailrace.chat",
        "request_id": "the-request",
        "session_id": TURN.session_id,
        "stream_id": TURN.stream_id,
    }
    return said


def test_the_start(caplog: pytest.LogCaptureFixture) -> None:
    Journal().started(TURN, "127.0.0.1", 3)
    said = the_record(caplog)
    assert said["message"] == "stream started for 127.0.0.1: What is a log?"
    assert {
        name: said[name] for name in ("event", "client", "model", "excerpt", "active_streams", "transfer_encoding")
    } == {
        "event": "stream_started",
        "client": "127.0.0.1",
        "model": "demo",
        "excerpt": "What is a log?",
        "active_streams": 3,
        "transfer_encoding": "chunked",
    }


def test_a_client_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    Journal().started(TURN, None, 1)
    assert the_record(caplog)["message"].startswith("stream started for unknown: ")


def test_a_chunk(caplog: pytest.LogCaptureFixture) -> None:
    Journal().chunk(TURN, 2, "Hello,\n world\x1b", 0.2100004)
    said = the_record(caplog)
    assert said["message"] == r'Chunk #2: "Hello, world\x1b"'
    assert {name: said[name] for name in ("event", "chunk_number", "excerpt", "is_final", "seconds")} == {
        "event": "stream_chunk",
        "chunk_number": 2,
        "excerpt": r"Hello, world\x1b",
        "is_final": False,
        "seconds": 0.21,
    }


def test_the_last_chunk(caplog: pytest.LogCaptureFixture) -> None:
    Journal().chunk(TURN, 9, "", 0.1, is_final=True)
    assert the_record(caplog)["message"] == 'Chunk #9: "" (final)'


@pytest.mark.parametrize(("which", "numbers"), [("some", [1, 10, 20, 30]), ("all", list(range(1, 31)))])
def test_which_chunks_are_logged(which: LogChunks, numbers: list[int]) -> None:
    assert [number for number in range(1, 31) if Journal(which).logs_chunk(number)] == numbers


def test_a_good_end(caplog: pytest.LogCaptureFixture) -> None:
    Journal().ended(replace(TURN, state="complete", reply="a secret", chunks=1042, seconds=104.2), 0)
    said = the_record(caplog)
    assert (said["levelname"], said["message"]) == ("INFO", "stream complete: 1,042 chunks in 104.200 s")
    assert {name: said[name] for name in ("event", "status", "chunks", "seconds", "active_streams", "model")} == {
        "event": "stream_ended",
        "status": "complete",
        "chunks": 1042,
        "seconds": 104.2,
        "active_streams": 0,
        "model": "demo",
    }
    assert "a secret" not in str(said)


def test_a_bad_end(caplog: pytest.LogCaptureFixture) -> None:
    Journal().ended(replace(TURN, state="failed", error_code="model_error", error_message="It broke."), 2)
    said = the_record(caplog)
    assert (said["levelname"], said["error_code"], said["error_message"]) == ("WARNING", "model_error", "It broke.")


@pytest.mark.parametrize(
    ("message", "excerpt"),
    [
        ("short", "short"),
        ("  two\n\n lines\t", "two lines"),
        ("x" * EXCERPT, "x" * EXCERPT),
        ("x" * (EXCERPT + 1), "x" * (EXCERPT - 1) + "…"),
        ("word " * 40, "word word word word word word word word word word word word…"),
        ("a" + " " * 10_000 + "b", "a…"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
    ],
)
def test_an_excerpt_is_one_short_harmless_line(message: str, excerpt: str) -> None:
    assert excerpt_of(message) == excerpt
    assert len(excerpt) <= EXCERPT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:a/b?c#d@e@host:1/0", "redis://***@host:1/0"),
        ("rediss+sentinel://:pw@a,b:2/it", "rediss+sentinel://***@a,b:2/it"),
        ("from http://a:b@c/d, http://e:f/g@h or http://i/j", "from http://***@c/d, http://***@h or http://i/j"),
        ("'http://a/b','me@c'", "'http://a/b','me@c'"),
        ("no sk-0123 nor AIza_x, mail me@host", "no *** nor ***, mail me@host"),
    ],
)
def test_keys_and_passwords_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_hiding_takes_no_longer_for_many_addresses() -> None:
    text = "x://" * 100_000
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "text", ["", "a b", "[bold]", "Grüße, 世界", "👩\u200d💻 and \u00a0", "\\x1b"], ids=lambda text: ascii(text)
)
def test_what_is_only_read_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x7f\x9b1m", r"\x7f\x9b1m"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("a\u2028b\ud800", r"a\u2028b\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, harmless: str) -> None:
    assert printable(text) == harmless

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tailrace.chat.journal import EXCERPT, Journal, excerpt_of
from tailrace.chat.requests import request_id
from tailrace.chat.sessions import Turn

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
    assert {name: said[name] for name in ("event", "client", "model", "excerpt", "active_streams")} == {
        "event": "stream_started",
        "client": "127.0.0.1",
        "model": "demo",
        "excerpt": "What is a log?",
        "active_streams": 3,
    }


def test_a_client_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    Journal().started(TURN, None, 1)
    assert the_record(caplog)["message"].startswith("stream started for unknown: ")


@pytest.mark.parametrize(
    ("number", "message"), [(1, "first chunk after 0.210 s"), (10_000, "10,000 chunks after 0.210 s")]
)
def test_chunks(caplog: pytest.LogCaptureFixture, number: int, message: str) -> None:
    Journal().chunks(TURN, number, 0.2100004)
    said = the_record(caplog)
    assert (said["message"], said["event"], said["chunks"], said["seconds"]) == (message, "stream_chunks", number, 0.21)


def test_only_the_first_and_powers_of_ten_are_told(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    for number in range(1, 2001):
        journal.chunks(TURN, number, 0.1)
    assert [vars(record)["chunks"] for record in caplog.records] == [1, 10, 100, 1000]


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

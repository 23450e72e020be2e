from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import fastapi
import pytest

from tailrace.chat.journal import Journal, ServerFacts, announce, request_id, session_id
from tailrace.chat.logs import BROKEN_OFF, LOGGERS, JsonHandler, RichHandler, configure_logging
from tailrace.chat.models.base import ModelError
from tailrace.chat.store import Turn, TurnState
from tests.chat.api.talking import JSON, Scripted, body, chatting
from tests.chat.test_journal import TURN

EVIL = "[red]x[/red] \x1b]0;title\x07\u202e :smile:"

logger = logging.getLogger("tailrace.chat")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the whole process."""
    loggers = [logging.getLogger(name) for name in (*LOGGERS, "uvicorn.access", "uvicorn.error", "tailrace.chat")]
    before = [(each, each.handlers, each.level, each.propagate) for each in loggers]
    yield
    for each, handlers, level, propagate in before:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def through(handler: logging.Handler) -> None:
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)


def shown(handler_width: int = 80, **ended: Any) -> str:
    """The frame of a turn's end."""
    stream = io.StringIO()
    through(RichHandler(stream, width=handler_width))
    Journal().ended(replace(TURN, **ended), 0)
    return stream.getvalue()


def failing() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("it broke: %s", EVIL)


# Where it goes


@pytest.mark.parametrize("name", ["tailrace", "tailrace.chat", "uvicorn.error"])
def test_tailrace_and_uvicorn_are_heard(stream: io.StringIO, name: str) -> None:
    configure_logging("json", stream)
    logging.getLogger(name).info("a word")
    logging.getLogger(name).debug("too much")
    assert [(line["logger"], line["message"]) for line in lines(stream)] == [(name, "a word")]


def test_uvicorn_s_access_log_and_its_complaint_of_broken_bodies_are_not(stream: io.StringIO) -> None:
    configure_logging("json", stream)
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("uvicorn.error").error(BROKEN_OFF)
    logging.getLogger("uvicorn.error").error("another")
    assert [line["message"] for line in lines(stream)] == ["another"]


@pytest.mark.parametrize(
    ("which", "numbers"), [("some", [1, 10, 20, 23]), ("all", list(range(1, 24)))], ids=["some", "all"]
)
async def test_chunks_are_logged_with_number_and_excerpt(
    stream: io.StringIO, tmp_path: Path, which: str, numbers: list[int]
) -> None:
    model = Scripted(*(f"piece {number} " for number in range(1, 23)))
    async with chatting(tmp_path, model, log_chunks=which) as chat:
        configure_logging("json", stream)
        await chat.say("Go")
    logged = [line for line in lines(stream) if line.get("event") == "stream_chunk"]
    assert [line["chunk_number"] for line in logged] == numbers
    assert logged[1]["message"] == f'Chunk #{numbers[1]}: "piece {numbers[1]}"'
    assert logged[-1]["message"] == 'Chunk #23: "" (final)'


async def test_a_failed_reply_is_told_once(stream: io.StringIO, tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("part", ModelError("it broke", code="model_error"))) as chat:
        configure_logging("json", stream)
        await chat.post("/chat/stream", 502, json=body("Go", None), headers=JSON)
        logging.getLogger("tailrace").info("log %s failed: %s (%s)", "/mine", "no", "x")
    told = [line for line in lines(stream) if " failed: " in line["message"]]
    assert [(line["logger"], line.get("error_message")) for line in told] == [
        ("tailrace.chat", "it broke"),
        ("tailrace", None),
    ]


def test_configuring_again_takes_the_place_of_the_first(stream: io.StringIO) -> None:
    first = io.StringIO()
    configure_logging("json", first)
    configure_logging("json", stream)
    logger.info("a word")
    assert (first.getvalue(), len(lines(stream))) == ("", 1)


@pytest.mark.parametrize(("kind", "handler"), [(io.StringIO, JsonHandler), (Terminal, RichHandler)])
def test_auto_is_frames_on_a_terminal_only(kind: type[io.StringIO], handler: type[logging.Handler]) -> None:
    assert isinstance(configure_logging("auto", kind()), handler)


def test_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    configure_logging()
    logger.info("a word")
    assert json.loads(capsys.readouterr().err)["message"] == "a word"


def test_importing_configures_nothing() -> None:
    assert logging.getLogger("tailrace").handlers == []


# JSON


def test_json_is_one_object_a_line_with_what_was_said_beside_it(stream: io.StringIO) -> None:
    configure_logging("json", stream)
    logger.warning("%s words\nin two lines", 4, extra={"event": "x", "answer": 42, "nothing": None, "odd": {1}})
    logger.info("another")
    said = lines(stream)[0]
    moment = datetime.fromisoformat(said.pop("timestamp"))
    assert moment.utcoffset() is not None
    assert said == {
        "level": "warning",
        "logger": "tailrace.chat",
        "message": "4 words\nin two lines",
        "request_id": None,
        "session_id": None,
        "event": "x",
        "answer": 42,
        "odd": "{1}",
    }
    assert len(lines(stream)) == 2


def test_timestamps_are_utc_with_milliseconds(stream: io.StringIO) -> None:
    through(JsonHandler(stream))
    logger.handle(logging.makeLogRecord({"created": 1.5, "msg": "a word", "levelno": logging.INFO}))
    assert lines(stream)[0]["timestamp"] == "1970-01-01T00:00:01.500Z"


def test_ids_come_from_the_context_unless_the_record_has_them(stream: io.StringIO) -> None:
    configure_logging("json", stream)
    tokens = request_id.set("r"), session_id.set("s")
    logger.info("a word")
    Journal().chunk(TURN, 1, "Hello", 0.1)
    request_id.reset(tokens[0])
    session_id.reset(tokens[1])
    assert [(line["request_id"], line["session_id"]) for line in lines(stream)] == [("r", "s"), ("r", TURN.session_id)]


def test_json_has_exceptions_and_no_byte_that_a_terminal_obeys(stream: io.StringIO) -> None:
    configure_logging("json", stream)
    failing()
    assert stream.getvalue().replace("\n", "").isprintable()
    assert stream.getvalue().isascii()
    said = lines(stream)[0]
    assert said["message"] == f"it broke: {EVIL}"
    assert said["exception"].startswith("Traceback (most recent call last):\n")
    assert said["exception"].endswith(f"ValueError: {EVIL}")


def test_the_banner_is_one_record_too(stream: io.StringIO) -> None:
    configure_logging("json", stream)
    announce(ServerFacts("demo", "http://127.0.0.1:8000", "chat.sqlite3"))
    (said,) = lines(stream)
    assert (said["event"], said["model"], said["status"]) == ("server_started", "demo", "ready")
    assert "note" not in said


@pytest.mark.parametrize("kind", [JsonHandler, RichHandler])
def test_a_traceback_may_be_text_already(stream: io.StringIO, kind: type[JsonHandler | RichHandler]) -> None:
    through(kind(stream))
    logger.handle(logging.makeLogRecord({"msg": "it broke", "levelno": logging.WARNING, "exc_text": "Traceback\nBoom"}))
    assert stream.getvalue().count("Boom") == 1


# For people


def test_the_start_is_a_frame(stream: io.StringIO) -> None:
    through(RichHandler(stream, width=100))
    Journal().started(replace(TURN, message=EVIL), "127.0.0.1", 2)
    top, *rows, bottom = stream.getvalue().splitlines()
    assert re.match(r"╭─ \d\d:\d\d:\d\d\.\d{3} stream started ─", top)
    assert [row.strip("│ ") for row in rows] == [
        "Client             127.0.0.1",
        f"Session            {TURN.session_id}",
        f"Stream             {TURN.stream_id}",
        r"Message            [red]x[/red] \x1b]0;title\x07\u202e :smile:",
        "Model              demo",
        "Active streams     2",
        "Transfer-Encoding  chunked",
    ]
    assert {len(line) for line in (top, *rows, bottom)} == {80}


def test_a_client_without_an_address_is_unknown(stream: io.StringIO) -> None:
    through(RichHandler(stream))
    Journal().started(TURN, None, 1)
    assert "Client             unknown" in stream.getvalue()


def test_chunks_are_a_line(stream: io.StringIO) -> None:
    through(RichHandler(stream, width=80))
    Journal().chunk(TURN, 2, "Hello", 0.21)
    assert stream.getvalue()[12:] == ' 5f8a3f52 Chunk #2: "Hello"\n'


@pytest.mark.parametrize("state", ["complete", "stopped", "failed", "interrupted"])
def test_the_end_is_a_frame_that_says_the_state_in_words(state: TurnState) -> None:
    text = shown(state=state, chunks=1042, seconds=104.238)
    for row in ("Chunks          1,042 ", "Time            104.238 s ", f"Status          {state} "):
        assert f"│ {row}" in text
    assert f"stream {state}" in text.splitlines()[0]
    assert "Error" not in text


def test_the_end_says_why_it_failed() -> None:
    text = shown(state="failed", error_code="model_error", error_message=EVIL)
    assert r"│ Error           model_error: [red]x[/red] \x1b]0;title\x07\u202e :smile: " in text


def test_nothing_is_lost_where_it_is_narrow() -> None:
    message = "https://example.org/" + "x" * 90
    text = shown(40, state="failed", error_code="model_error", error_message=message)
    assert {len(line) for line in text.splitlines()} == {40}
    assert f"model_error:{message}" in "".join(line.strip("│ ") for line in text.splitlines()).replace(" ", "")


def test_all_else_is_lines_with_their_time_and_a_level_that_is_not_usual(stream: io.StringIO) -> None:
    through(RichHandler(stream, width=40))
    logger.info("a long line %s", "x" * 60)
    logger.debug("small")
    logger.error("bad")
    written = stream.getvalue().splitlines()
    assert [line[12:] for line in written] == [" a long line " + "x" * 60, " debug small", " error bad"]
    assert all(datetime.strptime(line[:12], "%H:%M:%S.%f") for line in written)


def test_an_exception_keeps_its_lines_and_obeys_nothing(stream: io.StringIO) -> None:
    through(RichHandler(stream, width=40))
    failing()
    written = stream.getvalue().splitlines()
    assert written[0][12:] == r" error it broke: [red]x[/red] \x1b]0;title\x07\u202e :smile:"
    assert written[1] == "Traceback (most recent call last):"
    assert written[-1] == r"ValueError: [red]x[/red] \x1b]0;title\x07\u202e :smile:"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    through(RichHandler(terminal, width=80))
    Journal().ended(replace(TURN, state="failed"), 0)
    logger.warning("careful")
    assert "\x1b[31m" in terminal.getvalue()
    assert "\x1b[33mwarning" in terminal.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    through(RichHandler(terminal, width=80))
    Journal().ended(replace(TURN, state="failed"), 0)
    # Bold and dim are no colours.
    assert "\x1b[3" not in terminal.getvalue()


def test_a_record_that_cannot_be_shown_breaks_nothing(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    through(RichHandler(stream))
    logger.info("%d", "no number")
    logger.info("a word", extra={"event": "stream_ended"})
    assert stream.getvalue() == ""
    assert capsys.readouterr().err.count("--- Logging error ---") == 2


def test_another_s_turn_state_has_a_plain_frame() -> None:
    turn: Turn = replace(TURN, state="generating")
    stream = io.StringIO()
    through(RichHandler(stream, width=80))
    Journal().ended(turn, 0)
    assert "stream generating" in stream.getvalue()


FACTS = ServerFacts(
    model="demo",
    address="http://127.0.0.1:8000",
    database="/home/me/.local/share/tailrace/chat.sqlite3",
)


def drawn(facts: ServerFacts, width: int = 80) -> str:
    stream = io.StringIO()
    through(RichHandler(stream, width=width))
    announce(facts)
    return stream.getvalue()


def test_the_banner_of_workers_says_what_they_share() -> None:
    text = drawn(replace(FACTS, streams="redis://127.0.0.1:6379/0", status="starting 4 workers"))
    for name, value in [("Streams", "redis://127.0.0.1:6379/0"), ("Status", "starting 4 workers")]:
        assert any(line.startswith(f"│ {name} ") and value in line for line in text.splitlines()), name


def test_the_banner_says_what_one_needs_to_know() -> None:
    text = drawn(FACTS)
    assert text.splitlines()[0].startswith("╭─ tailrace chat server ─")
    for name, value in [
        ("Model", "demo"),
        ("Framework", f"FastAPI {fastapi.__version__}, HTTP streaming"),
        ("Multi-turn", "yes"),
        ("Streaming", "yes"),
        ("Address", "http://127.0.0.1:8000"),
        ("Demo page", "http://127.0.0.1:8000/demo"),
        ("API", "http://127.0.0.1:8000/docs"),
        ("Database", "/home/me/.local/share/tailrace/chat.sqlite3"),
        ("Status", "ready"),
        ("To stop", "press Ctrl-C"),
    ]:
        assert any(line.startswith(f"│ {name} ") and value in line for line in text.splitlines()), name
    assert "Note" not in text
    assert "Streams" not in text
    assert {len(line) for line in text.splitlines()} == {80}


def test_a_note_is_a_line_of_its_own() -> None:
    assert "│ Note        no key was found" in drawn(replace(FACTS, note="no key was found"))


@pytest.mark.parametrize("width", [60, 40])
def test_nothing_of_the_banner_is_lost_where_it_is_narrow(width: int) -> None:
    text = drawn(FACTS, width)
    assert {len(line) for line in text.splitlines()} == {width}
    assert FACTS.database in "".join(line.strip("│ ") for line in text.splitlines())


def test_names_are_text_and_no_markup() -> None:
    assert "[red]x[/red]\\x1b[2J" in drawn(replace(FACTS, model="[red]x[/red]\x1b[2J"))


def test_it_is_announced_as_one_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tailrace.chat")
    announce(FACTS)
    (record,) = caplog.records
    assert record.getMessage() == "chat server ready on http://127.0.0.1:8000 with demo"
    assert vars(record)["event"] == "server_started"
    assert vars(record)["database"] == FACTS.database

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from tailrace.cli.terminal.tables import Listing, aligned, cut, of_health, of_server, of_session
from tailrace.cli.text import duration, moment
from tailrace.client.objects import Health, Message, Requests, Session, SessionDetails, Stats

AT = datetime(2026, 11, 21, 15, 43, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def found(
    count: int, stream_id: str | None = None, created: datetime = AT, updated: datetime = AT + timedelta(seconds=1)
) -> SessionDetails:
    messages = [Message(role="user", text="", timestamp=at(1)), Message(role="assistant", text="", timestamp=at(1))]
    return SessionDetails(
        session_id="x",
        model="m",
        message_count=count,
        created=created,
        updated=updated,
        stream_id=stream_id,
        messages=messages[:count],
    )


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ("0", "0", "0")), (2, ("2", "1", "1")), (501, ("501", "251", "250"))]
)
def test_a_message_and_its_reply_are_counted_together(count: int, expected: tuple[str, ...]) -> None:
    facts = dict(of_session(found(count)))
    assert (facts["Messages"], facts["  yours"], facts["  replies"]) == expected


def test_a_session_lasts_to_the_end_of_its_last_reply() -> None:
    assert dict(of_session(found(2)))["Duration"] == "1.0 s"
    assert dict(of_session(found(2, updated=at(9).replace(tzinfo=None))))["Duration"] == "9.0 s"


def test_a_session_that_is_answering_lasts() -> None:
    begun = datetime.now(UTC) - timedelta(minutes=5)
    facts = dict(of_session(found(2, "stream", begun, begun)))
    assert facts["State"] == "generating"
    assert facts["Duration"].startswith("5 min ")
    [line] = Listing(120, None).lines(found(2, "stream", begun, begun))
    assert "  5 min " in line


def test_what_a_server_does_not_say_is_unknown() -> None:
    stats = Stats(
        uptime=1.0,
        requests=Requests(total=3, successful=2, failed=1),
        active_sessions=None,
        active_streams=4,
        sessions_created=5,
        average_response_time=0.456,
        chunks=6,
        model="m",
        framework="f",
    )
    facts = dict(of_server("http://x", stats))
    assert (facts["Requests"], facts["Successful requests"], facts["Failed requests"]) == ("3", "2", "1")
    assert (facts["Active sessions"], facts["Average response time"]) == ("unknown", "0.46 s")
    assert dict(of_server("http://x", stats.model_copy(update={"active_sessions": 7})))["Active sessions"] == "7"


def test_health_has_its_reason() -> None:
    health = Health(status="healthy", active_streams=1, active_connections=2, uptime=3.0)
    facts = dict(of_health(health))
    assert (facts["Status"], facts["Database"], facts["Event loop lag"]) == ("healthy", "unknown", "unknown")
    worse = {"status": "unhealthy", "reason": "no database", "database": "failed", "event_loop_lag": 0.0123}
    facts = dict(of_health(health.model_copy(update=worse)))
    assert (facts["Status"], facts["Database"], facts["Event loop lag"]) == (
        "unhealthy: no database",
        "failed",
        "12 ms",
    )


ID = "93d405f7-897f-49e2-b6d9-ef2daa08de84"
TITLE = "a title of forty characters, more or less"


def session(title: str = TITLE, stream_id: str | None = None) -> Session:
    updated = AT + timedelta(minutes=3, seconds=5)
    return Session(session_id=ID, title=title, message_count=12, created=AT, updated=updated, stream_id=stream_id)


ROW = f"* 93d405f7        12  {moment(AT)}  3 min 5 s     "


@pytest.mark.parametrize(
    ("columns", "found", "expected"),
    [
        (120, session(), [f"{ROW}{TITLE}"]),
        (79, session(), [f"{ROW}a title of forty charact…"]),
        (70, session(), [f"{ROW}a title of fort…"]),
        (69, session(), ["* 93d405f7        12  a title of forty characters, more or less"]),
        (39, session(), ["* 93d405f7        12  a title of forty…"]),
        (39, session(stream_id="x"), ["* 93d405f7        12  a t… (generating)"]),
        (39, session("two\nlines \x1b[2J"), ["* 93d405f7        12  two lines ␛[2J"]),
        (39, session(""), ["* 93d405f7        12  –"]),
        (10, session(), ["* 93d405f7        12  …"]),
    ],
)
def test_a_title_has_the_room_that_there_is(columns: int, found: Session, expected: list[str]) -> None:
    listing = Listing(columns, ID)
    lasted = duration((datetime.now(UTC) - AT).total_seconds()) if found.stream_id else "3 min 5 s"
    times = [] if columns > 69 else [f"    {moment(AT)}  {lasted}"]
    assert list(listing.lines(found)) == [*expected, *times]
    assert listing.heading.index("Title") == (len(ROW) if columns > 69 else 22)


def test_only_the_current_session_is_marked() -> None:
    assert next(Listing(79, None).lines(session())).startswith("  93d405f7 ")


@pytest.mark.parametrize("columns", range(1, 12))
def test_a_wide_character_counts_twice(columns: int) -> None:
    assert cell_len(cut("日本語の題", columns)) <= columns


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [
        ([("One", "1"), ("Three", "")], 40, ["  One    1", "  Three"]),
        ([("Long", "word " * 8)], 34, ["  Long  word word word word word", "        word word word"]),
        ([("A long name", "word " * 4)], 30, ["  A long name", "    word word word word"]),
        ([("A long name", "word")], 19, ["  A long name  word"]),
        ([("Session", ID)], 40, ["  Session", f"    {ID}"]),
        ([("Session", ID)], 39, ["  Session", f"   {ID}"]),
        ([("Session", ID)], 20, ["  Session", ID]),
        ([("Session", ID)], 79, [f"  Session  {ID}"]),
    ],
)
def test_two_columns_whose_words_stay_whole(rows: list[tuple[str, str]], width: int, expected: list[str]) -> None:
    assert list(aligned(rows, width)) == expected

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tailrace.cli.terminal.facts import of_health, of_server, of_session
from tailrace.client.objects import Health, Message, Requests, SessionDetails, Stats

AT = datetime(2026, 11, 21, 15, 43, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def found(
    count: int, stream_id: str | None = None, created: datetime = AT, updated: datetime = AT + timedelta(seconds=1)
) -> SessionDetails:
    messages = [Message(role="user", text="", timestamp=at(1)), Message(role="assistant", text="", timestamp=at(4.5))]
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
    assert dict(of_session(found(2)))["Duration"] == "4.5 s"
    assert dict(of_session(found(0)))["Duration"] == "1.0 s"
    assert dict(of_session(found(2, updated=at(9).replace(tzinfo=None))))["Duration"] == "9.0 s"


def test_a_session_that_is_answering_lasts() -> None:
    begun = datetime.now(UTC) - timedelta(minutes=5)
    facts = dict(of_session(found(2, "stream", begun, begun)))
    assert facts["State"] == "answering"
    assert facts["Duration"].startswith("5 min ")


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

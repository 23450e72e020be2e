from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from tailrace.cli.terminal.formatting import moment
from tailrace.cli.terminal.listing import Listing, cut
from tailrace.client.objects import Session

AT = datetime(2026, 11, 21, 15, 43, tzinfo=UTC)
ID = "93d405f7-897f-49e2-b6d9-ef2daa08de84"
TITLE = "a title of forty characters, more or less"


def session(title: str = TITLE, stream_id: str | None = None) -> Session:
    return Session(session_id=ID, title=title, message_count=12, created=AT, updated=AT, stream_id=stream_id)


@pytest.mark.parametrize(
    ("columns", "found", "expected"),
    [
        (120, session(), f"* 93d405f7        12  {moment(AT)}  {TITLE}"),
        (79, session(), f"* 93d405f7        12  {moment(AT)}  a title of forty characters, more or l…"),
        (60, session(), f"* 93d405f7        12  {moment(AT)}  a title of forty ch…"),
        (59, session(), "* 93d405f7        12  a title of forty characters, more or…"),
        (39, session(), "* 93d405f7        12  a title of forty…"),
        (39, session(stream_id="x"), "* 93d405f7        12  a ti… (answering)"),
        (39, session("two\nlines \x1b[2J"), "* 93d405f7        12  two lines ␛[2J"),
        (39, session(""), "* 93d405f7        12  –"),
        (10, session(), "* 93d405f7        12  …"),
    ],
)
def test_a_title_has_the_room_that_there_is(columns: int, found: Session, expected: str) -> None:
    listing = Listing(columns, ID)
    assert listing.line(found) == expected
    assert listing.heading.index("Title") == len(expected) - len(expected[22 + 18 * (columns > 59) :])


def test_only_the_current_session_is_marked() -> None:
    assert Listing(79, None).line(session()).startswith("  93d405f7 ")


@pytest.mark.parametrize("columns", range(1, 12))
def test_a_wide_character_counts_twice(columns: int) -> None:
    assert cell_len(cut("日本語の題", columns)) <= columns

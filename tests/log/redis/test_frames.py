"""Frames as the scripts write them."""

from __future__ import annotations

import pytest

from tailrace.cursor import Cursor
from tailrace.events import Outcome
from tailrace.log.redis.frames import (
    NO_TAG,
    Batch,
    Dropped,
    End,
    Facts,
    Frame,
    Rows,
    decode_outcome,
    encode_outcome,
    is_keyed,
    parse,
    random_tags,
    tag_of,
)

FRAMES: dict[str, tuple[bytes, Frame]] = {
    "batch": (b"+ E 7 2 tagg prev 70 0\n1\n{}", Batch(b"E", 7, b"tagg", b"prev", 70, [b"1", b"{}"])),
    "batch with names": (
        b"+ E 2 2 tagg - 3 123\n\nt\xc3\xbcr\n1\n22",
        Batch(b"E", 2, b"tagg", b"-", 3, [b"1", b"22"], [b"", "tür".encode()]),
    ),
    "batch of one with a name": (
        b"+ E 1 1 tagg - 1 0\ntick\n1",
        Batch(b"E", 1, b"tagg", b"-", 1, [b"1"], [b"tick"]),
    ),
    "batch that trims": (
        b"+ E 7 1 tagg prev 70 0 3 30\n1",
        Batch(b"E", 7, b"tagg", b"prev", 70, [b"1"], trimmed=(3, 30)),
    ),
    "end": (
        b'= E 7 tagg {"state":"error","message":"a b"}',
        End(b"E", 7, b"tagg", Outcome("error", message="a b")),
    ),
    "control": (b"! E 9 2 1 0 s p q ", Facts(b"E", 9, 2, True, False, b"s", frozenset((b"p", b"q")))),
    "control of nobody": (b"! E 9 0 0 1 - ", Facts(b"E", 9, 0, False, True, b"", frozenset())),
    "drop": (b"x E", Dropped(b"E")),
}


@pytest.mark.parametrize(("frame", "expected"), FRAMES.values(), ids=FRAMES)
def test_a_frame_is_read(frame: bytes, expected: Frame) -> None:
    assert parse(frame) == expected


def test_a_batch_knows_where_it_starts() -> None:
    frame = parse(FRAMES["batch"][0])
    assert isinstance(frame, Batch)
    assert frame.start == 5


@pytest.mark.parametrize(
    ("rows", "body"),
    [
        ([(None, b"1"), (None, b"22")], b"1\n22"),
        ([(None, b"1"), ("tür", b"22")], b"\nt\xc3\xbcr\n1\n22"),
    ],
)
def test_rows_are_written_in_columns(rows: list[tuple[str | None, bytes]], body: bytes) -> None:
    columns = Rows.of(rows, b"tagg")
    assert (columns.body, columns.size) == (body, 3)


@pytest.mark.parametrize(
    "outcome", [Outcome("done"), Outcome("done", data={"a": [1, None]}), Outcome("error", "code", "a message\nü")]
)
def test_an_outcome_survives(outcome: Outcome) -> None:
    json = encode_outcome(outcome)
    assert b"\n" not in json
    assert decode_outcome(json) == outcome


def test_a_tag_fits_into_a_cursor() -> None:
    tags = random_tags()
    for number in range(1_000):
        for tag in (next(tags), tag_of(str(number))):
            cursor = Cursor("s", "e", 1, tag=tag.decode())
            assert Cursor.parse(str(cursor)) == cursor


def test_the_tag_of_a_key_is_always_the_same_and_never_a_random_one() -> None:
    tags = {tag_of(str(number)) for number in range(1_000)}
    assert {tag_of(str(number)) for number in range(1_000)} == tags
    assert len(tags) == 1_000
    assert all(map(is_keyed, tags))
    assert not is_keyed(next(random_tags()))
    assert not is_keyed(NO_TAG)

"""Batches in columns, however they are cut."""

from __future__ import annotations

import pytest

from tailrace.log.redis.columns import Columns
from tailrace.log.redis.frames import Batch


def batch(
    start: int, *json: bytes, tag: bytes = b"tagg", prev: bytes, cum: int, names: list[bytes] | None = None
) -> Batch:
    return Batch(b"E", start + len(json), tag, prev, cum, list(json), names)


@pytest.fixture
def columns() -> Columns:
    """Three batches after offset 10: of two entries, of one, and of three with names."""
    return Columns.of(
        [
            batch(10, b"1", b"22", tag=b"aaaa", prev=b"zero", cum=103),
            batch(12, b"333", tag=b"bbbb", prev=b"aaaa", cum=106),
            batch(13, b"4", b"5", b"6", tag=b"cccc", prev=b"bbbb", cum=109, names=[b"", b"five", b"six"]),
        ]
    )


def test_entries_have_offsets_names_and_tags(columns: Columns) -> None:
    entries = columns.slice(10, 100, 100)
    assert list(entries.offsets) == [11, 12, 13, 14, 15, 16]
    assert entries.json == [b"1", b"22", b"333", b"4", b"5", b"6"]
    assert [entry.event for entry in entries] == [None, None, None, None, "five", "six"]
    assert entries.tags == [b"aaaa", b"aaaa", b"bbbb", b"cccc", b"cccc", b"cccc"]
    assert entries.spelled == [b"11~aaaa", b"12~aaaa", b"13~bbbb", b"14~cccc", b"15~cccc", b"16~cccc"]


@pytest.mark.parametrize("after", range(10, 17))
@pytest.mark.parametrize("limit", range(1, 8))
def test_any_slice_is_a_part_of_the_whole(columns: Columns, after: int, limit: int) -> None:
    whole = columns.slice(10, 100, 100)
    part = columns.slice(after, limit, 100)
    cut = slice(after - 10, after - 10 + limit)
    assert (part.json, part.spelled) == (whole.json[cut], whole.spelled[cut])


def test_a_slice_is_bounded_in_bytes_but_has_one_entry(columns: Columns) -> None:
    assert [len(columns.slice(10, 100, size)) for size in (1, 3, 5, 9)] == [1, 2, 2, 6]


def test_a_tag_is_known_where_a_batch_is_held(columns: Columns) -> None:
    tags = [columns.tag_at(offset) for offset in range(9, 18)]
    assert tags == [None, b"zero", b"aaaa", b"aaaa", b"bbbb", b"cccc", b"cccc", b"cccc", None]


def test_only_the_next_batch_follows(columns: Columns) -> None:
    assert columns.follows(batch(16, b"7", prev=b"cccc", cum=110))
    assert not columns.follows(batch(16, b"7", prev=b"dddd", cum=110))
    assert not columns.follows(batch(17, b"7", prev=b"cccc", cum=110))
    assert not columns.follows(batch(13, b"4", b"5", b"6", prev=b"bbbb", cum=109))

"""Batches in columns, however they are cut."""

from __future__ import annotations

import pytest

from tailrace.log.redis import columns as module
from tailrace.log.redis.columns import Columns
from tailrace.log.redis.frames import Batch


def batch(
    start: int, *json: bytes, tag: bytes = b"tagg", prev: bytes, cum: int, names: list[bytes] | None = None
) -> Batch:
    return Batch(b"E", start + len(json), tag, prev, cum, list(json), names)


@pytest.fixture
def columns() -> Columns:
    """Three batches behind offset 10: of two entries, of one, and of three with names."""
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


@pytest.mark.parametrize(("bound", "base"), [(100, 10), (8, 10), (7, 12), (6, 12), (5, 13), (3, 13), (1, 13)])
def test_the_oldest_batches_go_when_an_eighth_is_too_much(columns: Columns, bound: int, base: int) -> None:
    columns.keep(bound)
    assert (columns.base, columns.top, columns.tag) == (base, 16, b"cccc")
    whole = [b"11~aaaa", b"12~aaaa", b"13~bbbb", b"14~cccc", b"15~cccc", b"16~cccc"]
    assert columns.slice(base, 100, 100).spelled == whole[base - 10 :]
    assert columns.slice(14, 1, 100)[0].event == "five"
    assert columns.size == sum(map(len, columns.slice(base, 100, 100).json))


def test_small_batches_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BATCHES", 16)
    columns = Columns(0)
    for number in range(1, 100):
        columns.add(batch(number - 1, b"1", prev=columns.tag, cum=number))
        columns.keep(1_000)
        assert columns.batches <= 18
    assert columns.batches >= 16


def test_names_go_with_their_entries(columns: Columns) -> None:
    columns.add(batch(16, b"7" * 50, tag=b"dddd", prev=b"cccc", cum=159))
    columns.keep(10)
    assert (columns.base, columns.batches) == (16, 1)
    assert columns.slice(16, 9, 100).events == {}


def test_bytes_behind_an_offset_are_counted_by_batches(columns: Columns) -> None:
    assert [columns.bytes_after(offset) for offset in (0, 10, 11, 12, 13, 15, 16)] == [9, 9, 9, 6, 3, 3, 0]

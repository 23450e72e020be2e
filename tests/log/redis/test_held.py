"""The bounds of the part of a stream that a mirror holds."""

from __future__ import annotations

import pytest

from tailrace.log.redis import held as module
from tailrace.log.redis.frames import Batch
from tailrace.log.redis.held import Held


def batch(held: Held, *json: bytes, names: list[bytes] | None = None) -> Batch:
    """Make the next batch, with a tag of its own."""
    top = held.top + len(json)
    return Batch(b"E", top, b"tag%d" % top, held.tag, held.cum + sum(map(len, json)), list(json), names)


def three_batches() -> Held:
    """Hold three batches after offset 10: of two entries, of one, and of three with names."""
    held = Held(10, b"tag10", 100)
    held.add(batch(held, b"1", b"22"))
    held.add(batch(held, b"333"))
    held.add(batch(held, b"4", b"5", b"6", names=[b"", b"five", b"six"]))
    return held


@pytest.mark.parametrize(("bound", "base"), [(100, 10), (8, 10), (7, 12), (6, 12), (5, 13), (3, 13), (1, 13)])
def test_the_oldest_batches_go_when_an_eighth_is_too_much(
    bound: int, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", bound)
    held = three_batches()
    assert (held.base, held.top, held.tag) == (base, 16, b"tag16")
    whole = [b"11~tag12", b"12~tag12", b"13~tag13", b"14~tag16", b"15~tag16", b"16~tag16"]
    assert held.slice(base, 100, 100).spelled == whole[base - 10 :]
    assert held.slice(14, 1, 100)[0].event == "five"
    assert held.size == sum(map(len, held.slice(base, 100, 100).json))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("most_bytes", "most_batches"), [(1_000, 16), (16, 1_000)])
def test_small_batches_are_bounded_in_number_and_in_bytes(
    most_bytes: int, most_batches: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", most_bytes)
    monkeypatch.setattr(module, "HELD_BATCHES", most_batches)
    held = Held(0)
    for _ in range(99):
        held.add_entry(b"tag", b"1") if alone else held.add(batch(held, b"1"))
        assert held.top - held.base <= 18
    assert 16 <= held.top - held.base == held.size


def test_names_go_with_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 10)
    held = three_batches()
    held.add(batch(held, b"7" * 50))
    assert (held.base, held.size) == (16, 50)
    assert held.slice(16, 9, 100).events == {}


def test_an_entry_is_held_like_a_batch_of_one() -> None:
    one, other = three_batches(), three_batches()
    next_one = batch(one, b"7")
    one.add(next_one)
    other.add_entry(next_one.tag, b"7")
    for name in ("base", "floor", "top", "cum", "tag"):
        assert getattr(one, name) == getattr(other, name)
    assert one.slice(10, 100, 100).spelled == other.slice(10, 100, 100).spelled
    assert [one.bytes_after(offset) for offset in range(18)] == [other.bytes_after(offset) for offset in range(18)]


def test_bytes_behind_an_offset_are_counted_by_batches() -> None:
    held = three_batches()
    assert [held.bytes_after(offset) for offset in (0, 10, 11, 12, 13, 15, 16)] == [9, 9, 9, 6, 3, 3, 0]

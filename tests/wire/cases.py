"""What every wire's tests share: what a log may say, and the ways in which bytes may arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tailrace.errors import DecodeError
from tailrace.events import (
    BYTES,
    DONE,
    RESERVED,
    Degraded,
    Dropped,
    Entries,
    Entry,
    Farewell,
    Notice,
    Outcome,
    Reset,
    encode_data,
)
from tailrace.wire.base import Decoder, Encoder, Frame

STREAM = "s1"
EPOCH = "e1"
CREATED = 1_700_000_000


def at(offset: int) -> str:
    """The cursor after an entry of the cases' log."""
    return f"{STREAM}.{EPOCH}.{offset}"


@dataclass(frozen=True)
class Case:
    """What a log says in a row, how a wire spells it, and what its decoder makes of that."""

    said: Sequence[Entry | Notice]
    spelled: bytes
    read: Sequence[Frame]


def entry(offset: int, data: Any, event: str | None = None) -> Entry:
    return Entry(offset, event, encode_data(data))


def tagged(rows: Iterable[Entry], *tags: str) -> Entries:
    """A batch of a log that has tags, one for each entry."""
    plain = Entries.of(rows)
    return Entries(plain.offsets, plain.json, plain.events, [tag.encode() for tag in tags])


def spell(encoder: Encoder, said: Iterable[Entry | Notice]) -> bytes:
    """Everything that was said, entry by entry; a notice stands at the cursor of the entry before it."""
    pieces: list[bytes] = []
    cursor = at(0)
    for item in said:
        if isinstance(item, Entry):
            cursor = at(item.offset)
            pieces.append(encoder.encode(Entries.of([item])))
        else:
            pieces.append(encoder.notice(item, f"{cursor}.end" if isinstance(item, Outcome) else cursor))
    return b"".join(pieces)


# What wires with cursors and event names are asked to say; each adds how it spells that.
_SAID: dict[str, tuple[Sequence[Entry | Notice], Sequence[Frame]]] = {
    "bare data": ([entry(1, {"left": 3})], [Frame({"left": 3}, None, at(1))]),
    "a named event": ([entry(2, "hi", "greeting")], [Frame("hi", "greeting", at(2))]),
    "null": ([entry(1, None)], [Frame(None, None, at(1))]),
    "text with line ends": ([entry(1, "a\r\nb")], [Frame("a\r\nb", None, at(1))]),
    "text beyond ASCII": ([entry(1, "é\u2028\x85😀", "名")], [Frame("é\u2028\x85😀", "名", at(1))]),
    "entries, then done": (
        [entry(1, 1), entry(2, 2), DONE],
        [Frame(1, None, at(1)), Frame(2, None, at(2)), Frame({}, "done", f"{at(2)}.end")],
    ),
    "an end with a value": (
        [Outcome("done", data={"tokens": 3})],
        [Frame({"data": {"tokens": 3}}, "done", f"{at(0)}.end")],
    ),
    "an error": (
        [entry(1, 1), Outcome("error", "quota", "no\nmore")],
        [Frame(1, None, at(1)), Frame({"code": "quota", "message": "no\nmore"}, "error", f"{at(1)}.end")],
    ),
    "a cancellation": (
        [Outcome("cancelled", "stopped")],
        [Frame({"code": "stopped"}, "cancelled", f"{at(0)}.end")],
    ),
    "a reset": ([Reset("trimmed")], [Frame({"reason": "trimmed"}, "reset", at(0))]),
    "a farewell": (
        [entry(5, 1), Farewell("slow", 250)],
        [Frame(1, None, at(5)), Frame({"reason": "slow", "retry": 250}, "farewell", at(5), 250)],
    ),
    "a replacement": (
        [Farewell("replaced", 0)],
        [Frame({"reason": "replaced", "retry": 0}, "farewell", at(0), 0)],
    ),
    "dropped entries": (
        [Dropped(3), entry(4, 1)],
        [Frame({"count": 3}, "dropped", at(0)), Frame(1, None, at(4))],
    ),
    "a store out of reach": (
        [entry(1, 1), Degraded(True), Degraded(False), entry(2, 2)],
        [
            Frame(1, None, at(1)),
            Frame({"degraded": True}, "degraded", at(1)),
            Frame({"degraded": False}, "degraded", at(1)),
            Frame(2, None, at(2)),
        ],
    ),
}


def cases(spelled: Mapping[str, bytes]) -> dict[str, Case]:
    """The cases of a wire, which has to spell all that is said."""
    assert spelled.keys() == _SAID.keys()
    return {name: Case(said, spelled[name], read) for name, (said, read) in _SAID.items()}


def in_one_piece(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def with_empty_pieces(data: bytes) -> list[bytes]:
    return [piece for byte in byte_by_byte(data) for piece in (b"", byte)]


WAYS: list[Callable[[bytes], list[bytes]]] = [in_one_piece, byte_by_byte, with_empty_pieces]


def splits(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """`data` in pieces, cut anywhere."""
    return st.lists(st.integers(0, len(data)), max_size=8).map(
        lambda cuts: [
            data[start:end] for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True)
        ]
    )


def read(decoder: Decoder, pieces: Iterable[bytes]) -> list[Frame]:
    """All frames of bytes that end after the last piece."""
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    return frames + decoder.close()


def read_until_error(decoder: Decoder, pieces: Iterable[bytes]) -> tuple[list[Frame], DecodeError | None]:
    """The frames before the error, and the error."""
    frames: list[Frame] = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
        frames += decoder.close()
    except DecodeError as error:
        return frames, error
    return frames, None


# JavaScript and JSON agree on these numbers; a lone surrogate is in no UTF-8.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON_DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_TEXT, children, max_size=4),
    max_leaves=12,
)
EVENT_NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=12
).filter(lambda name: name.isprintable() and name not in {*RESERVED, BYTES})
ENTRIES = st.lists(st.tuples(JSON_DATA, st.none() | EVENT_NAMES), max_size=6).map(
    lambda items: [entry(offset, data, event) for offset, (data, event) in enumerate(items, 1)]
)
TAGS = st.text("ABCxyz019_-", min_size=4, max_size=8)

"""The formats of stored batches and of the messages on a stream's two channels.

| frame | meaning |
|---|---|
| `+ epoch top n tag prev cum time [base floor]`, a line each for rows | a batch of `n` entries that ends at `top` |
| `= epoch top tag outcome` | the end, after `top` |
| `! epoch version fence leased stop seat readers…` | the writer, whether it must stop, and which processes read |
| `x epoch` | this incarnation was dropped |

`base` and `floor` are there if the append has trimmed the stream, `cum` and `time` for the next trimming. `seat` is the
newest claim to read the stream alone, or `-`.

The rows of a batch are the JSON of its entries. If one of them has an event name, the names come first, in as many
lines, empty for an entry without. Neither a name nor JSON holds a line end. A tag names its batch, and as `prev` the
batch before, so that a mirror can check that it has that one. It is random, or made of the append's key.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple, TypeAlias

from pydantic_core import from_json, to_json

from ...events import Outcome
from ..base import Row

NO_TAG = b"-"
"""The tag of the place before the first batch."""


NO_SEAT = b"-"
"""The seat of a frame, if nobody has claimed it."""


BATCH = ord("+")
"""The first byte of a batch's frame."""


class Batch(NamedTuple):
    """Entries that were appended in one step.

    `cum` is the `cum` of the stream with this batch. If the append has trimmed the stream, `trimmed` has its `base` and
    `floor`.
    """

    epoch: bytes
    top: int
    tag: bytes
    prev: bytes
    cum: int
    json: list[bytes]
    names: list[bytes] | None = None
    trimmed: tuple[int, int] | None = None

    @property
    def start(self) -> int:
        """The offset before its first entry."""
        return self.top - len(self.json)


class Rows:
    """The columns of a batch that is to be appended, and its tag. `size` is the bytes of JSON.

    A tuple with names would take twice as long to make, and there is one of these for each batch.
    """

    __slots__ = ("json", "names", "size", "tag")

    def __init__(self, tag: bytes, json: list[bytes], names: list[bytes] | None) -> None:
        self.tag = tag
        self.json = json
        self.names = names
        self.size = sum(map(len, json))

    @classmethod
    def of(cls, rows: Sequence[Row], tag: bytes) -> Rows:
        """Put rows into columns."""
        named = any(name is not None for name, _ in rows)
        names = [(name or "").encode() for name, _ in rows] if named else None
        return cls(tag, [json for _, json in rows], names)

    @property
    def body(self) -> bytes:
        """The lines of the frame."""
        return b"\n".join(self.json if self.names is None else [*self.names, *self.json])


class End(NamedTuple):
    """The end of a stream."""

    epoch: bytes
    top: int
    tag: bytes
    outcome: Outcome


class Facts(NamedTuple):
    """A version of a stream's `Control`, and the processes that have readers."""

    epoch: bytes
    version: int
    fence: int
    leased: bool
    stopping: bool
    seat: bytes
    readers: frozenset[bytes]


class Dropped(NamedTuple):
    """The end of an incarnation."""

    epoch: bytes


Frame: TypeAlias = Batch | End | Facts | Dropped


_RANDOM = 5
"""The length of a random tag."""


_SPELLING = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" * 4
"""A character for each byte, of which six bits count."""


def random_tags() -> Iterator[bytes]:
    """Yield names for batches without end: 30 random bits each, in characters that a cursor may hold."""
    random = Random()
    while True:
        spelled = random.randbytes(256 * _RANDOM).translate(_SPELLING)
        for start in range(0, len(spelled), _RANDOM):
            yield spelled[start : start + _RANDOM]


def tag_of(key: str) -> bytes:
    """Return the tag of the batch that is appended with a key: 48 bits of its digest, as many as a cursor may hold.

    There are some thousand tags to confuse it with, and random ones are shorter.
    """
    return urlsafe_b64encode(hashlib.sha256(key.encode()).digest()[:6])


def is_keyed(tag: bytes) -> bool:
    """Tell whether a batch was appended with a key."""
    return len(tag) > _RANDOM


def parse(frame: bytes) -> Frame:
    """Read a frame."""
    return _PARSE[frame[:1]](frame)


def parse_batch(frame: bytes) -> Batch:
    """Read the frame of a batch."""
    return batch_of(split_batch(frame))


def split_batch(frame: bytes) -> list[bytes]:
    """Split the frame of a batch into its first fields. The last one has the other fields, and the rows after them."""
    return frame.split(b" ", 7)


def batch_of(fields: list[bytes]) -> Batch:
    """Read the fields of a batch."""
    _, epoch, top, n, tag, prev, cum, rest = fields
    names = trimmed = None
    rows = rest.split(b"\n")
    line = rows.pop(0)
    if len(rows) > 1 and (count := int(n)) < len(rows):
        names, rows = rows[:count], rows[count:]
    if not line.isdigit():
        _, base, floor = line.split(b" ")
        trimmed = int(base), int(floor)
    # Measured: this takes half as long as a call of Batch.
    return tuple.__new__(Batch, (epoch, int(top), tag, prev, int(cum), rows, names, trimmed))


def _end(frame: bytes) -> End:
    _, epoch, top, tag, outcome = frame.split(b" ", 4)
    return End(epoch, int(top), tag, decode_outcome(outcome))


def _facts(frame: bytes) -> Facts:
    _, epoch, version, fence, leased, stop, seat, readers = frame.split(b" ", 7)
    return Facts(
        epoch,
        int(version),
        int(fence),
        leased == b"1",
        stop == b"1",
        b"" if seat == NO_SEAT else seat,
        frozenset(readers.split()),
    )


def _dropped(frame: bytes) -> Dropped:
    return Dropped(frame[2:])


_PARSE: dict[bytes, Callable[[bytes], Frame]] = {b"+": parse_batch, b"=": _end, b"!": _facts, b"x": _dropped}


def encode_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as JSON."""
    return to_json({"state": outcome.state, **outcome.members})


def decode_outcome(json: bytes) -> Outcome:
    """Read an outcome."""
    return Outcome(**from_json(json))

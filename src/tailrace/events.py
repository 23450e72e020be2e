"""What an application yields, what a log keeps, and what a reader is told."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import EventError, ResetReason

T = TypeVar("T")

State = Literal["done", "error", "cancelled"]

RESERVED = frozenset({"done", "error", "cancelled", "reset", "farewell", "dropped"})
"""Event names of notices, on every wire. An application's events must have other names."""

BYTES = "bytes"
"""The event name of entries whose data is base64, for bytes that are not UTF-8. Plain text carries them as they are."""


# Without slots: a frozen generic dataclass with slots raises a TypeError for `Event[int](1)` on Python 3.11.
@dataclass(frozen=True)
class Event(Generic[T]):
    """Data with an event name. Yield the bare data if it needs no name."""

    data: T
    event: str | None = None

    def __post_init__(self) -> None:
        if self.event is not None:
            check_event_name(self.event)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its offset in a log. `json` is its data, which was encoded when the event was appended."""

    offset: int
    event: str | None
    json: bytes

    @property
    def data(self) -> Any:
        """The data, decoded at each access."""
        return from_json(self.json)


class Entries(Sequence[Entry]):
    """A batch of entries in columns, as logs keep them and wires encode them, without an object for each entry.

    `offsets` rise. `events` has the names of the entries that have one, by offset.
    """

    __slots__ = ("_bodies", "events", "json", "offsets")

    def __init__(self, offsets: Sequence[int], json: Sequence[bytes], events: Mapping[int, str] = MappingProxyType({})):
        self.offsets = offsets
        self.json = json
        self.events = events
        self._bodies: dict[object, bytes] | None = None

    @property
    def bodies(self) -> dict[object, bytes]:
        """The bytes of the batch by encoder, for readers that share it."""
        if self._bodies is None:
            self._bodies = {}
        return self._bodies

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """Put entries into columns."""
        rows = list(entries)
        names = {entry.offset: entry.event for entry in rows if entry.event is not None}
        return cls([entry.offset for entry in rows], [entry.json for entry in rows], names)

    def __len__(self) -> int:
        return len(self.json)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Entry | Entries:
        if isinstance(index, slice):
            return Entries(self.offsets[index], self.json[index], self.events)
        offset = self.offsets[index]
        return Entry(offset, self.events.get(offset), self.json[index])

    def __repr__(self) -> str:
        return f"Entries({list(self)!r})"


@dataclass(frozen=True, slots=True)
class Result:
    """The value of a whole stream, such as its statistics. Yield it last: the log's outcome carries `data`."""

    data: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a log ended. Clients see every field. `data` is the value of the generator's Result, as read from JSON."""

    state: State
    code: str | None = None
    message: str | None = None
    data: Any = None

    @property
    def members(self) -> dict[str, Any]:
        """The fields besides the state that are not None, as every wire writes them."""
        fields = {"code": self.code, "message": self.message, "data": self.data}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Reset:
    """The cursor cannot be continued. The reader must discard what it has read."""

    reason: ResetReason


@dataclass(frozen=True, slots=True)
class Farewell:
    """The server ends the connection, not the stream. Come back with the cursor after `retry` milliseconds."""

    reason: Literal["shutdown", "slow"]
    retry: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The reader was too slow and has missed `count` entries."""

    count: int


Notice: TypeAlias = Outcome | Reset | Farewell | Dropped
"""What a reader is told besides its entries."""

Encode: TypeAlias = Callable[[Any], tuple[str | None, bytes]]
"""A function from an item to its event name and its data as one line of JSON. It raises EventError if it cannot."""

DONE = Outcome("done")


def check_event_name(name: str) -> None:
    """Raise EventError unless a name can stand on every wire."""
    if name in RESERVED or name == BYTES:
        raise EventError(f"expected an event name of the application, but {name!r} is reserved for notices and bytes")
    if not name or not name.isprintable():
        raise EventError(f"expected a printable event name on one line, but got {name!r}")


def encode_event(item: Any) -> tuple[str | None, bytes]:
    """Return the event name and the JSON of an Event or of bare data (pydantic model, dataclass, dict, str, number …).

    Bytes become a string if they are UTF-8; otherwise base64 under the event name `bytes`.
    """
    if isinstance(item, Event):
        return item.event, encode_data(item.data)
    try:
        return None, encode_data(item)
    except EventError:
        if not isinstance(item, bytes | bytearray | memoryview):
            raise
        return BYTES, b'"%b"' % b2a_base64(item, newline=False)


def encode_data(data: Any) -> bytes:
    """Encode data as one line of JSON, as FastAPI spells it: aliases by name, NaN and infinities as null.

    Raise EventError if it is not JSON-able.
    """
    try:
        json = to_json(data, by_alias=True, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"expected JSON-able data, but got {type(data).__qualname__}: {error}") from error
    return json if json.isascii() else escape_line_ends(json)


def escape_line_ends(json: bytes) -> bytes:
    """Escape U+0085, U+2028 and U+2029 in JSON: clients that read lines by `str.splitlines` would break there.

    JSON allows them raw (RFC 8259, section 7), and so does text/event-stream, whose only line ends are CR and LF.
    """
    # A look for one byte takes 20 ns, a `replace` 130 ns and more. Quotes and dashes have E2, but rarely the others.
    if (0xE2 in json and (0xA8 in json or 0xA9 in json)) or (0xC2 in json and 0x85 in json):
        for raw, escaped in _LINE_ENDS:
            json = json.replace(raw, escaped)
    return json


_LINE_ENDS = [(end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029"]

"""The items that applications yield, the entries that logs keep, and the notices that readers get."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NoReturn, TypeAlias, TypeVar, final, overload

from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import EventError, ResetReason

T = TypeVar("T")

State = Literal["done", "error", "cancelled"]

FarewellReason = Literal["shutdown", "slow", "replaced"]

RESERVED = frozenset({"done", "error", "cancelled", "reset", "farewell", "dropped", "degraded"})
"""The event names of notices on every wire. An application's events must have other names."""

BYTES_LIKE: Final = (bytes, bytearray, memoryview)

BYTES = "bytes"
"""The event name of entries with base64 data, for bytes that are not UTF-8. Plain text sends the bytes themselves."""


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
    """An event at its offset in a log. `json` is its data, encoded when the event was appended."""

    offset: int
    event: str | None
    json: bytes

    @property
    def data(self) -> Any:
        """The data. Each access decodes it anew."""
        return from_json(self.json)


class Entries(Sequence[Entry]):
    """A batch of entries in columns, without an object per entry. Logs keep this form, and wires encode it.

    `offsets` rise. `events` has the event names by offset, for entries that have one. `tags` has the tag of each
    entry, if the log has tags.
    """

    __slots__ = ("_bodies", "events", "json", "offsets", "tags")

    def __init__(
        self,
        offsets: Sequence[int],
        json: Sequence[bytes],
        events: Mapping[int, str] = MappingProxyType({}),
        tags: Sequence[bytes] | None = None,
    ) -> None:
        self.offsets = offsets
        self.json = json
        self.events = events
        self.tags = tags
        self._bodies: dict[object, bytes] | None = None

    @property
    def bodies(self) -> dict[object, bytes]:
        """The encoded bytes of the batch, by encoder. Its readers share them."""
        if self._bodies is None:
            self._bodies = {}
        return self._bodies

    @property
    def spelled(self) -> Sequence[bytes]:
        """The places of the entries as cursors spell them: `12~Ab3d`, or `12` if the log has no tags."""
        if self.tags is None:
            return [b"%d" % offset for offset in self.offsets]
        return [b"%d~%b" % place for place in zip(self.offsets, self.tags, strict=True)]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """Put entries into columns."""
        rows = list(entries)
        names = {entry.offset: entry.event for entry in rows if entry.event is not None}
        return cls([entry.offset for entry in rows], [entry.json for entry in rows], names)

    def pick(self, indices: Sequence[int]) -> Entries:
        """Return the entries at some indices, which must rise."""
        tags = None if self.tags is None else [self.tags[index] for index in indices]
        offsets = [self.offsets[index] for index in indices]
        return Entries(offsets, [self.json[index] for index in indices], self.events, tags)

    def __len__(self) -> int:
        return len(self.json)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Entry | Entries:
        if isinstance(index, slice):
            tags = None if self.tags is None else self.tags[index]
            return Entries(self.offsets[index], self.json[index], self.events, tags)
        offset = self.offsets[index]
        return Entry(offset, self.events.get(offset), self.json[index])

    def __repr__(self) -> str:
        return f"Entries({list(self)!r})"


@final
@dataclass(frozen=True, slots=True)
class Result:
    """The value of a whole stream, such as its statistics. Yield it last. The log's outcome then has its `data`."""

    data: Any

    def __init_subclass__(cls) -> NoReturn:
        # The producer checks each item, so it recognises a Result by its exact type, which is fast.
        raise TypeError(f"expected no subclass of Result, but got {cls.__qualname__}: put the value into its data")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a log. Clients see every field. `data` is the value of the generator's Result, as read from JSON."""

    state: State
    code: str | None = None
    message: str | None = None
    data: Any = None

    @property
    def members(self) -> dict[str, Any]:
        """The fields that are not None, without the state, as every wire writes them."""
        fields = {"code": self.code, "message": self.message, "data": self.data}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Reset:
    """Tells a reader that its cursor cannot be continued. The reader must discard what it has read."""

    reason: ResetReason


@dataclass(frozen=True, slots=True)
class Farewell:
    """Tells a reader that the server ends the connection, but not the stream.

    The reader should come back with its cursor after `retry` milliseconds. If the reason is `replaced`, it should not,
    because another connection reads the stream in its place.
    """

    reason: FarewellReason
    retry: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Tells a reader that it was too slow and missed `count` entries."""

    count: int


@dataclass(frozen=True, slots=True)
class Degraded:
    """Tells a reader that the server cannot reach the store, so new entries may be late, or that it can again."""

    degraded: bool


Notice: TypeAlias = Outcome | Reset | Farewell | Dropped | Degraded
"""Everything that a reader gets besides entries."""

Encode: TypeAlias = Callable[[Any], tuple[str | None, bytes]]
"""A function from an item to its event name and its data as one line of JSON. It raises EventError if that fails."""

DONE = Outcome("done")


def check_event_name(name: str) -> None:
    """Raise EventError unless a name is valid on every wire."""
    if name in RESERVED or name == BYTES:
        raise EventError(f"expected an event name of the application, but {name!r} is reserved for notices and bytes")
    if not name or not name.isprintable():
        raise EventError(f"expected a printable event name on one line, but got {name!r}")


def encode_event(item: Any) -> tuple[str | None, bytes]:
    """Return the event name and the JSON of an Event or of bare data (pydantic model, dataclass, dict, str, number …).

    UTF-8 bytes become a string. Other bytes become base64, with the event name `bytes`.
    """
    event = None
    if isinstance(item, Event):
        event, item = item.event, item.data
    # Measured: calling encode_data here would cost 30 ns of the 1 µs that an event takes from the generator to `send`.
    try:
        json = to_json(item, by_alias=True, inf_nan_mode="null")
    except _UNENCODED as error:
        if event is None and isinstance(item, BYTES_LIKE):
            return encode_bytes(item)
        raise _not_json_able(item, error) from error
    return event, json if json.isascii() else escape_line_ends(json)


def encode_bytes(data: bytes | bytearray | memoryview) -> tuple[str | None, bytes]:
    """Return UTF-8 bytes as a JSON string, or other bytes as base64 with the event name `bytes`."""
    raw = bytes(data)
    try:
        return None, encode_data(raw)
    except EventError:
        return BYTES, b'"%b"' % b2a_base64(raw, newline=False)


def encode_data(data: Any) -> bytes:
    """Encode data as one line of JSON, as FastAPI does: with aliases as names, and with NaN and infinities as null.

    Raise EventError if it is not JSON-able.
    """
    try:
        json = to_json(data, by_alias=True, inf_nan_mode="null")
    except _UNENCODED as error:
        raise _not_json_able(data, error) from error
    return json if json.isascii() else escape_line_ends(json)


_UNENCODED = (PydanticSerializationError, UnicodeDecodeError, RecursionError)


def _not_json_able(data: Any, error: Exception) -> EventError:
    return EventError(f"expected JSON-able data, but got {type(data).__qualname__}: {error}")


def escape_line_ends(json: bytes) -> bytes:
    """Escape U+0085, U+2028 and U+2029 in JSON, because clients that use `str.splitlines` would break lines there.

    JSON allows them raw (RFC 8259, section 7). So does text/event-stream, where only CR and LF end a line.
    """
    # Measured: searching for one byte takes 20 ns, a `replace` at least 130 ns. Text with typographic quotes and dashes
    # has E2, but rarely the other bytes.
    if (0xE2 in json and (0xA8 in json or 0xA9 in json)) or (0xC2 in json and 0x85 in json):
        for raw, escaped in _LINE_ENDS:
            json = json.replace(raw, escaped)
    return json


_LINE_ENDS = [(end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029"]

"""Packets: the messages of a packet session, in both directions."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json
from typing_extensions import TypeVar

from .errors import TailraceError
from .events import BYTES_LIKE, RESERVED, encode_data

P = TypeVar("P", default=Any)


class PacketType(StrEnum):
    """The packet types that every session knows. Your application may add its own."""

    REQUEST = "REQUEST"
    DATA = "DATA"
    EVENT = "EVENT"
    ERROR = "ERROR"
    PING = "PING"
    RESULT = "RESULT"


NOTICE_TYPES = {name.upper() for name in RESERVED} - {"ERROR"}
"""The packet types of the server's own notices. `ERROR` is not among them, because applications use it too."""

PacketTypeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
PacketId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]


class SocketPacket(BaseModel, Generic[P]):
    """A message of a packet session.

    - `packet_type`: a PacketType or a type of your application's own: up to 64 letters, digits, `_`, `.` and `-`.
    - `payload`: any JSON value. Bytes are sent as base64, and read back as bytes. `SocketPacket[Order]` validates it.
    - `id`: a name for the packet, up to 128 printable ASCII characters. A session delivers packets with one id once.
    - `reply_to`: the id of the packet that this one answers.
    """

    model_config = ConfigDict(frozen=True)

    packet_type: PacketTypeName
    payload: P = Field(default=None, validate_default=True)
    id: PacketId | None = None
    reply_to: PacketId | None = None

    _base: ClassVar[frozenset[str]] = frozenset({"packet_type", "payload", "id", "reply_to"})

    def reply(self, payload: Any = None, packet_type: str = PacketType.DATA) -> SocketPacket:
        """Return a packet that answers this one."""
        return SocketPacket(packet_type=packet_type, payload=payload, reply_to=self.id)

    def encode(self) -> bytes:
        """Return the packet as one line of JSON. Raise EventError if its payload is not JSON-able."""
        payload: Any = self.payload
        # Measured: the model's own serializer takes twice as long, and cannot leave out the members that are None.
        members: dict[str, Any] = {"packet_type": self.packet_type, "payload": payload}
        if isinstance(payload, BYTES_LIKE):
            members |= {"payload": b64encode(payload).decode(), "encoding": "base64"}
        if self.id is not None:
            members["id"] = self.id
        if self.reply_to is not None:
            members["reply_to"] = self.reply_to
        if len(self.__pydantic_fields__) > len(self._base):
            members |= self.model_dump(exclude=set(self._base), by_alias=True)
        return encode_data(members)

    @classmethod
    def decode(cls, line: str | bytes, *, strict: bool = False) -> Self:
        """Read a packet from JSON. If `strict`, it may have no unknown members. Raise pydantic.ValidationError."""
        if b'"encoding"' in (line.encode() if isinstance(line, str) else line):
            try:
                members = from_json(line)
            except ValueError:
                members = None  # which pydantic explains
            if isinstance(members, dict) and members.get("encoding") == "base64":
                return cls.read(members, strict=strict)
        # Measured: model_validate_json takes half as long again.
        packet: Self = cls.__pydantic_validator__.validate_json(line, extra="forbid" if strict else "ignore")
        return packet

    @classmethod
    def read(cls, members: Any, *, strict: bool = False) -> Self:
        """Read a packet from its members, which came from JSON. Raise pydantic.ValidationError."""
        return cls.model_validate(_with_bytes(members, cls.__name__), extra="forbid" if strict else "ignore")


def _with_bytes(members: Any, title: str) -> Any:
    """Return a packet's members with its payload as bytes, if the packet says that it is in base64."""
    if not isinstance(members, dict) or members.get("encoding") != "base64":
        return members
    payload = members.get("payload")
    try:
        decoded = b64decode(payload if isinstance(payload, str) else "-", validate=True)
    except binascii.Error:
        mistake = PydanticCustomError("base64", "expected a string in base64")
        detail = InitErrorDetails(type=mistake, loc=("payload",), input=payload)
        raise ValidationError.from_exception_data(title, [detail]) from None
    return {**{name: value for name, value in members.items() if name != "encoding"}, "payload": decoded}


class RequestFailed(TailraceError):
    """Raised when the answer to a request is a packet of the type `ERROR`, which is `packet`."""

    def __init__(self, packet: SocketPacket) -> None:
        super().__init__(packet)
        self.packet = packet

    def __str__(self) -> str:
        return f"the answer to packet {self.packet.reply_to!r} is an error: {self.packet.payload!r:.300}"

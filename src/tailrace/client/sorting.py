"""Sort the contents of a stream into events for the application and notices from the server, without I/O."""

from __future__ import annotations

import re
from collections import deque
from functools import partial
from typing import Protocol, TypeAlias

from ..cursor import Cursor, is_cursor
from ..errors import DecodeError
from ..events import DONE, RESERVED, Degraded, Dropped, Notice, Outcome, Reset
from ..wire.base import Decoder, Frame, read_notice
from ..wire.batch import Batch
from ..wire.ndjson import NDJSON, LinesDecoder, NDJSONDecoder
from ..wire.openai import DONE_MARK, read_failure
from ..wire.sse import ONLY_RETRY, SSE, SSEJSONDecoder
from ..wire.text import Text
from ..wire.websocket import MessageDecoder
from .errors import NotAStream, StreamLost, StreamRefused, told_refusal
from .settings import Backoff, Loss, Plan

# Decoders

SOCKET = "websocket"
"""The media type for the messages of a WebSocket. A driver returns one message per read."""


class _Make(Protocol):
    def __call__(self, *, max_bytes: int) -> Decoder: ...


_LINES = (NDJSON.media_type, *NDJSON.aliases, "application/jsonlines", "application/json-lines", "application/x-jsonl")

_DECODERS: dict[str, _Make] = {
    SSE.media_type: partial(SSEJSONDecoder, strict=False, marks={DONE_MARK: DONE}),
    **dict.fromkeys(_LINES, LinesDecoder),
    Batch.media_type: lambda max_bytes: Batch().decoder(),
    Text.media_type: Text().decoder,
    # The transport bounds the size of a message.
    SOCKET: lambda max_bytes: MessageDecoder(strict=False, has_cursors=False),
}

_WITH_CURSORS: dict[str, _Make] = {
    **dict.fromkeys(_LINES, partial(NDJSONDecoder, strict=False)),
    SOCKET: lambda max_bytes: MessageDecoder(strict=False),
}

EXPECTED = ", ".join((SSE.media_type, NDJSON.media_type, Batch.media_type, Text.media_type))
ACCEPT = f"{SSE.media_type}, {NDJSON.media_type};q=0.9, {Batch.media_type};q=0.5, {Text.media_type};q=0.3"
"""The Accept header of a client, unless its caller gives another."""


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def decoder_for(media_type: str, max_bytes: int, *, has_cursors: bool) -> Decoder:
    """Make a decoder for any server's events. Raise NotAStream for a media type that cannot carry events."""
    make = _DECODERS.get(media_type)
    if make is None:
        raise NotAStream(media_type, EXPECTED)
    if has_cursors:
        make = _WITH_CURSORS.get(media_type, make)
    return make(max_bytes=max_bytes)


# The place in a stream

_FIELD_VALUE = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?")


def can_be_sent(token: str) -> bool:
    """Tell whether an id from any server can be the value of a header (RFC 9110, section 5.5)."""
    return _FIELD_VALUE.fullmatch(token) is not None


class Elsewhere(Exception):
    """An event belongs to another stream, or to another epoch of this one. Raised inside the client only."""


class AtEnd(Exception):
    """An event is the last one, by its cursor. Raised inside the client only."""


class Position:
    """The id of the last event, from any server. Only cursors have an order.

    An id is a cursor only if the server sends cursors, because other servers' ids may look like one.
    """

    def __init__(self, token: str | None = None, *, gives_cursors: bool = False) -> None:
        self.token = token
        self.gives_cursors = gives_cursors
        self._stem = ""
        self._offset = -1
        if token is not None:
            self.move(token)

    @property
    def is_at_end(self) -> bool:
        """True if the last cursor is that of the end."""
        return self.gives_cursors and self.token is not None and is_cursor(self.token) and self.token.endswith(".end")

    def begin(self, token: str) -> None:
        """Note that a response begins at a cursor. This sets the position only if there is none yet."""
        self.gives_cursors = True
        self.move(self.token or token)

    def move(self, token: str) -> None:
        """Move to an id, whether it is before or after the current one."""
        self.token = token
        self._stem, self._offset = "", -1
        if self.gives_cursors and is_cursor(token):
            cursor = Cursor.parse(token)
            self._stem, self._offset = _stem(cursor), cursor.offset

    def advance(self, token: str) -> bool:
        """Advance to an event's id. Return False if the event was received before.

        Raise Elsewhere if the event belongs to another stream, and AtEnd if it is the last one.
        """
        if not self.gives_cursors:
            self.token = token
            return True
        stem, _, offset = token.rpartition(".")
        # This runs for every event, so it checks only the part of the token after the known stem, as `is_cursor` does.
        if stem == self._stem and len(offset) <= 15 and offset.isascii() and offset.isdecimal():
            if (number := int(offset)) <= self._offset:
                return False
            self._offset = number
            self.token = token
            return True
        return self._jump(token)

    def _jump(self, token: str) -> bool:
        if is_cursor(token):
            cursor = Cursor.parse(token)
            if self._stem not in ("", _stem(cursor)):
                raise Elsewhere
            self.move(token)
            if cursor.ended:
                raise AtEnd
        self.move(token)
        return True


def _stem(cursor: Cursor) -> str:
    return f"{cursor.stream}.{cursor.epoch}"


# Events and ends

KNOWN = 1000
"""The number of ids to remember, so that events that another server repeats are recognised."""

End: TypeAlias = Notice | StreamRefused | DecodeError

Sorted: TypeAlias = tuple[list[Frame], End | None, Frame | None]
"""The events to deliver, the end of the response after them, and the frame with that end."""


class Sorting:
    """Sorts the frames of one stream, across all its connections."""

    def __init__(self, plan: Plan, backoff: Backoff) -> None:
        # A socket cannot tell whether it sends cursors before it has the message with its request's body.
        self.position = Position(plan.after, gives_cursors=plan.is_socket and plan.method != "GET")
        self.last: Frame | None = None
        """The last event that was delivered."""
        self.can_go_on = True
        """True if the next connection can continue after that event."""
        self.gave_since_reset = True
        self.degraded = False
        """True while the server cannot reach its store, as it has told on this connection."""
        self._plan = plan
        self._backoff = backoff
        self._known: deque[str] = deque([] if plan.after is None else [plan.after], KNOWN)
        self._first_id: str | None = None
        self._is_fresh = False  # True while all events of this response may be repetitions
        self._gave_id = False  # True once this response has had an event with an id
        self._is_document = False

    @property
    def says_outcomes(self) -> bool:
        """True if the server tells how a stream ends."""
        return self._is_document or (self.position.gives_cursors and self.position.token is not None)

    def begin(self, cursor: str | None, *, is_document: bool = False) -> None:
        """Note that a response begins, at a cursor if its server sends cursors. A document tells its outcome itself."""
        self._is_fresh, self._gave_id, self._is_document = bool(self._known), False, is_document
        if cursor is not None:
            self.position.begin(cursor)

    def restart(self, cursor: str | None) -> None:
        """Forget the earlier events, after a reset."""
        self.position = Position(cursor, gives_cursors=True)
        self.can_go_on, self.gave_since_reset = True, False

    def degrade(self, degraded: bool) -> None:
        """Note whether the server can reach its store, and tell the application if it is news."""
        if degraded != self.degraded:
            self.degraded = degraded
            if self._plan.on_degraded is not None:
                self._plan.on_degraded(degraded)

    def sort(self, frames: list[Frame], failure: DecodeError | None = None) -> Sorted:
        """Return the events to deliver, then the end of the response. `failure` is the decoder's error after them."""
        if self._is_fresh and not self.position.gives_cursors:
            frames = self._without_known(frames)
        given: list[Frame] = []
        end: End | None = failure
        said: Frame | None = None
        advance = self.position.advance
        try:
            for frame in frames:
                if frame.retry is not None and self._heed_retry(frame):
                    continue
                if (frame.event in RESERVED or frame.data is DONE) and (notice := self._read_notice(frame)) is not None:
                    if isinstance(notice, Degraded):
                        self.degrade(notice.degraded)
                        continue
                    if not isinstance(notice, Dropped):
                        end, said = notice, frame
                        break
                    self.position.move(frame.id or self.position.token or "")
                elif frame.id is not None and not advance(frame.id):
                    continue
                given.append(frame)
        except Elsewhere:
            end = Reset("epoch_changed")
        except AtEnd:
            # This is not a notice, but the last event. Its data is the stream's result.
            given.append(frame)
            end, said = Outcome("done", data=frame.data), frame
        except DecodeError as error:
            end = error
        if given:
            self._give(given)
        if end is DONE:  # OpenAI's API sends a failure as an event before the mark of the end
            end = read_failure(self.last) or end
        return given, end, said

    def _give(self, given: list[Frame]) -> None:
        self._backoff.succeed()
        self.gave_since_reset = True
        before, last = given[-2] if len(given) > 1 else self.last, given[-1]
        self.last = last
        if self.position.gives_cursors:
            self.can_go_on = last.id is not None
            return
        if ids := [frame.id for frame in given if frame.id is not None]:
            self._known.extend(ids)
            self._gave_id = True
            self._first_id = self._first_id or ids[0]
        if last.id is not None:
            # If two events have the same id, the second one has no id of its own.
            self.can_go_on = before is None or before.id != last.id
        elif self._gave_id or self.position.token is None:
            self.can_go_on = False

    def _without_known(self, frames: list[Frame]) -> list[Frame]:
        """Drop the first frames of a response that the client has already. For cursors, `Position` does that.

        Some servers begin with the last event that the client has, or always with their last few events.
        """
        new: list[Frame] = []
        token = self.position.token
        for index, frame in enumerate(frames):
            if frame.id is None:
                new.append(frame)
            elif frame.id not in self._known:
                self._is_fresh = False
                return new + frames[index:]
            elif frame.id == self._first_id != token and not self._plan.allow_gaps:
                reason = f"expected the server to go on after {token!r}, but it began again"
                raise StreamLost(Loss("broken", reason), token)
        return new

    def _heed_retry(self, frame: Frame) -> bool:
        """Note a delay. Return True if the frame has nothing else. A farewell's delay counts only once."""
        if frame.event != "farewell" and frame.retry is not None:
            self._backoff.heed(frame.retry)
        return frame.data is ONLY_RETRY

    def _read_notice(self, frame: Frame) -> Notice | StreamRefused | None:
        """Return the notice in a frame, unless its server may use the name for something else."""
        is_mark = frame.data is DONE
        if is_mark:
            return DONE
        if frame.id is None and self._plan.is_socket and self.position.gives_cursors:
            return told_refusal(frame.data["status"], frame.data)
        return read_notice(frame) if self.position.gives_cursors or self._is_document else None

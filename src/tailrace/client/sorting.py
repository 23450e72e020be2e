"""What the frames of a stream mean: events for the application, or something that the server has to say. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from ..errors import DecodeError
from ..events import DONE, RESERVED, Dropped, Notice, Reset
from ..wire.base import Frame, read_notice
from ..wire.sse import ONLY_RETRY
from .backoff import Backoff, seconds_of
from .chunks import read_failure
from .errors import StreamLost, StreamRefused, told_refusal
from .plan import Plan
from .position import Elsewhere, Position

KNOWN = 1000
"""Ids of other servers' events that are remembered, to notice those that are sent again."""

End: TypeAlias = Notice | StreamRefused | DecodeError

Sorted: TypeAlias = tuple[list[Frame], End | None, Frame | None]
"""The events to give, what ends the response behind them, and the frame that says so."""


class Sorting:
    """Of one stream, across all its connections."""

    def __init__(self, plan: Plan, backoff: Backoff) -> None:
        # Before it has had the message that is its request's body, a socket cannot say what it gives.
        self.position = Position(plan.after, gives_cursors=plan.is_socket and plan.method != "GET")
        self.last: Frame | None = None
        """The last event that was given."""
        self.can_go_on = True
        """Whether a next connection can go on after that one."""
        self.gave_since_reset = True
        self._plan = plan
        self._backoff = backoff
        self._known: deque[str] = deque([] if plan.after is None else [plan.after], KNOWN)
        self._first_id: str | None = None
        self._is_fresh = False  # whether all that has come in this response may have come before
        self._gave_id = False  # in this response
        self._is_document = False

    @property
    def says_outcomes(self) -> bool:
        """Whether the server says how a stream ends."""
        return self._is_document or (self.position.gives_cursors and self.position.token is not None)

    def begin(self, cursor: str | None, *, is_document: bool = False) -> None:
        """A response begins, at a cursor if its server gives any. How a document ended, it says itself."""
        self._is_fresh, self._gave_id, self._is_document = bool(self._known), False, is_document
        if cursor is not None:
            self.position.begin(cursor)

    def restart(self, cursor: str | None) -> None:
        """Forget what was, after a reset."""
        self.position = Position(cursor, gives_cursors=True)
        self.can_go_on, self.gave_since_reset = True, False

    def sort(self, frames: list[Frame], failure: DecodeError | None = None) -> Sorted:
        """What they come to; behind them the decoder has found a `failure`."""
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
                    if not isinstance(notice, Dropped):
                        # A failure of OpenAI's comes before the mark that nothing more does.
                        end, said = notice, frame
                        break
                    self.position.move(frame.id or self.position.token or "")
                elif frame.id is not None and not advance(frame.id):
                    continue
                given.append(frame)
        except Elsewhere:
            end = Reset("epoch_changed")
        except DecodeError as error:
            end = error
        if given:
            self._give(given)
        if end is DONE:
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
            # Two with the same id: the second has none of its own.
            self.can_go_on = before is None or before.id != last.id
        elif self._gave_id or self.position.token is None:
            self.can_go_on = False

    def _without_known(self, frames: list[Frame]) -> list[Frame]:
        """The first frames of a response without those that were there already. Of cursors that is known everywhere.

        Some servers begin with the event that was asked to be behind, or with the last few whatever was asked for.
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
                raise StreamLost(f"expected the server to go on after {token!r}, but it began again", token)
        return new

    def _heed_retry(self, frame: Frame) -> bool:
        """Whether that was all that the frame has to say. What a farewell says is for once only."""
        if frame.event != "farewell" and frame.retry is not None:
            self._backoff.floor = seconds_of(frame.retry)
        return frame.data is ONLY_RETRY

    def _read_notice(self, frame: Frame) -> Notice | StreamRefused | None:
        """What a frame says, unless it is of a server that means something else by the name."""
        is_mark = frame.data is DONE
        if is_mark:
            return DONE
        if frame.id is None and self._plan.is_socket and self.position.gives_cursors:
            return told_refusal(frame.data["status"], frame.data)
        return read_notice(frame) if self.position.gives_cursors or self._is_document else None

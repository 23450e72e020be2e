"""What the frames of a stream mean: events for the application, or something that the server has to say. No I/O."""

from __future__ import annotations

from ..events import DONE, RESERVED, Dropped, Notice, Outcome, Reset
from ..wire.base import Frame, read_notice
from ..wire.sse import ONLY_RETRY
from .backoff import Backoff, seconds_of
from .chunks import read_failure
from .errors import StreamLost, told_refusal
from .plan import Plan
from .position import Elsewhere, Position


class Sorting:
    """Of one stream, across all its connections.

    `is_fresh` says that the response is at its beginning.
    """

    def __init__(self, plan: Plan, backoff: Backoff) -> None:
        self.position = Position(plan.after, gives_cursors=plan.is_socket)
        self.says_outcomes = False
        """Whether the server says how a stream ends."""
        self.can_go_on = True
        """Whether the last event that was given has an id, or there was none yet."""
        self.last: Frame | None = None
        self.gave_since_open = False
        self.gave_since_reset = True
        self._is_fresh = True
        self._first_id: str | None = None
        self._notice_id: str | None = None
        self._is_socket = plan.is_socket
        self._allows_gaps = plan.allow_gaps
        self._backoff = backoff

    def begin(self, cursor: str | None) -> None:
        """A response begins, at a cursor if its server gives any."""
        self.gave_since_open = False
        self._is_fresh = True
        if cursor is not None:
            self.says_outcomes = True
            self.position.begin(cursor)

    def restart(self, cursor: str | None) -> None:
        """Forget what was, after a reset."""
        self.position = Position(cursor, gives_cursors=True)
        self.can_go_on, self.gave_since_reset = True, False

    def sort(self, frames: list[Frame]) -> tuple[list[Frame], Notice | None]:
        """What the application gets of them, up to a notice that ends the response; `pass_notice` goes behind that."""
        if self._is_fresh:
            frames = self._without_known(frames)
        given: list[Frame] = []
        notice: Notice | None = None
        advance = self.position.advance
        try:
            for frame in frames:
                if frame.retry is not None and self._heed_retry(frame):
                    continue
                if (frame.event in RESERVED or frame.data is DONE) and (notice := self._read_notice(frame)) is not None:
                    if not isinstance(notice, Dropped):
                        break
                    notice = None
                    self.pass_notice()
                elif frame.id is not None and not advance(frame.id):
                    continue
                given.append(frame)
        except Elsewhere:
            notice = Reset("epoch_changed")
        if given:
            self._give(given[-1])
        if isinstance(notice, Outcome) and frame.data is DONE:
            notice = read_failure(self.last) or notice
        return given, notice

    def pass_notice(self) -> None:
        """The application has all that came before the notice."""
        if self._notice_id is not None:
            self.position.move(self._notice_id)
            self._notice_id = None

    def _give(self, last: Frame) -> None:
        self._backoff.succeed()
        self.gave_since_open = self.gave_since_reset = True
        self.last = last
        self.can_go_on = last.id is not None
        # A socket's ids are all cursors: who gives them says also how the stream ends.
        self.says_outcomes |= self._is_socket and self.can_go_on

    def _without_known(self, frames: list[Frame]) -> list[Frame]:
        """What is new of a response's first frames. Of cursors that is known everywhere, of other ids only here."""
        ids = [frame.id for frame in frames]
        found = next((id_ for id_ in ids if id_ is not None), None)
        if found is None:
            return frames
        self._is_fresh = False
        if self.position.gives_cursors:
            return frames
        token = self.position.token
        if self._first_id is None:
            self._first_id = found
        elif found == self._first_id != token and not self._allows_gaps:
            raise StreamLost(f"expected the server to go on after {token!r}, but it began again with {found!r}", token)
        # Some begin with the event that was asked to be behind, or with the last few whatever was asked for.
        return frames[ids.index(token) + 1 :] if token is not None and token in ids else frames

    def _heed_retry(self, frame: Frame) -> bool:
        """Whether that was all that the frame has to say. What a farewell says is for once only."""
        if frame.event != "farewell" and frame.retry is not None:
            self._backoff.floor = seconds_of(frame.retry)
        return frame.data is ONLY_RETRY

    def _read_notice(self, frame: Frame) -> Notice | None:
        """The notice in a frame, unless it is of a server that means something else by the name."""
        if self._is_socket and frame.id is None and frame.event == "error":
            raise told_refusal(frame.data["status"], frame.data)
        if not (self.says_outcomes or frame.data is DONE or self._is_socket):
            return None
        self._notice_id = frame.id
        return DONE if frame.data is DONE else read_notice(frame)

"""What went wrong, in one line that says what to do about it."""

from __future__ import annotations

from argparse import Namespace

from ...client import StreamLost, StreamRefused, StreamReset
from ...errors import FrameTooLarge, TailraceError
from .way_on import WayOn

GONE = "the stream is gone; read it from its beginning, without --after"
_OF_WHAT_IS_GONE = (404, 410)


def explain(error: TailraceError, options: Namespace, way: WayOn, mark: str | None) -> str:
    """The line; `mark` is the id of the last event that was printed, or what the stream was asked for after."""
    if isinstance(error, StreamReset):
        return f"the stream was reset ({error.reason}); {way.after(error.cursor) or GONE}"
    if isinstance(error, FrameTooLarge):
        return _joined(f"{error}; --max-bytes allows more", way.after(mark))
    if isinstance(error, StreamLost):
        return _joined(str(error), way.after(error.cursor))
    if isinstance(error, StreamRefused):
        return _joined(str(error), _next(error, options, None if mark == options.after else way.after(mark)))
    return str(error)


def _next(error: StreamRefused, options: Namespace, way_on: str | None) -> str | None:
    """What to do where a request was refused: the first, before which there is no way on, or a later one."""
    if way_on is not None:
        return GONE if error.status in _OF_WHAT_IS_GONE else way_on
    if error.status == 405:
        method = options.method or ("GET" if options.data is None else "POST")
        allowed = error.members.get("allow")
        return f"expected the method {allowed}, but got {method}" if allowed else f"the method was {method}"
    return None


def _joined(text: str, more: str | None) -> str:
    return f"{text}; {more}" if more else text

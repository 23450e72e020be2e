"""The stream of a turn that ended earlier, made again from what was stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from .. import Result, StreamError
from ..client import ChatObject, Error, SessionInfo, Status
from .objects import INTERRUPTED, chunk, members
from .sessions import Turn
from .turns import complete


async def replay(turn: Turn, message_count: int) -> AsyncGenerator[ChatObject | dict[str, Any] | Result, None]:
    """Yield the objects of the turn, its text in one piece. It ends as the turn ended."""
    yield SessionInfo(session_id=turn.session_id, stream_id=turn.stream_id, model=turn.model)
    yield Status(
        message=f"This reply was stored: {turn.state}.", context_messages=turn.context_messages, dropped_messages=0
    )
    good = turn.state in ("complete", "stopped")
    if turn.reply or good:
        yield chunk(turn.reply, 1, is_final=good)
    if not good:
        code, message = turn.error_code or turn.state, turn.error_message or INTERRUPTED
        yield Result(members(Error(code=code, message=message)))
        raise StreamError(message, code=code)
    yield Result(members(complete(replace(turn, chunks=1), message_count)))

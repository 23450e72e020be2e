"""The stream of a turn that ended earlier, made again from what was stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from .. import StreamError
from .objects import INTERRUPTED, SessionInfo, Status, StreamObject, chunk
from .sessions import Turn
from .turns import complete


async def replay(turn: Turn, message_count: int) -> AsyncGenerator[StreamObject | dict[str, Any], None]:
    """The objects of the turn, its text in one piece, ending as it ended."""
    yield SessionInfo(session_id=turn.session_id, stream_id=turn.stream_id, model=turn.model)
    yield Status(
        message=f"This reply was stored: {turn.state}.", context_messages=turn.context_messages, dropped_messages=0
    )
    good = turn.state in ("complete", "stopped")
    if turn.reply or good:
        yield chunk(turn.reply, 1, is_final=good)
    if not good:
        code, message = turn.error_code or turn.state, turn.error_message or INTERRUPTED
        raise StreamError(message, code=code)
    yield complete(replace(turn, chunks=1), message_count)

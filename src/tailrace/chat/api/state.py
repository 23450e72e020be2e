"""What the endpoints share. All of it is `async`, although nothing waits: FastAPI would send the others to a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ..conversations import Conversations
from ..statistics import Statistics


async def _conversations(request: Request) -> Conversations:
    conversations: Conversations = request.app.state.conversations
    return conversations


Chat = Annotated[Conversations, Depends(_conversations)]


async def _statistics(request: Request) -> Statistics:
    statistics: Statistics = request.app.state.statistics
    return statistics


Counted = Annotated[Statistics, Depends(_statistics)]

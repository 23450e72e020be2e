"""What the endpoints share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ..conversations import Conversations
from ..statistics import Statistics


def _conversations(request: Request) -> Conversations:
    conversations: Conversations = request.app.state.conversations
    return conversations


Chat = Annotated[Conversations, Depends(_conversations)]


def _statistics(request: Request) -> Statistics:
    statistics: Statistics = request.app.state.statistics
    return statistics


Counted = Annotated[Statistics, Depends(_statistics)]

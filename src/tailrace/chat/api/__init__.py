"""The endpoints of the chat server, and their common dependencies.

The dependencies are `async` although they never wait, because FastAPI would run sync ones in a thread.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ..access import Access
from ..conversations import Conversations
from ..metrics import Metrics


async def _conversations(request: Request) -> Conversations:
    conversations: Conversations = request.app.state.conversations
    return conversations


Chat = Annotated[Conversations, Depends(_conversations)]


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


Counted = Annotated[Metrics, Depends(_metrics)]


async def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


Known = Annotated[Access, Depends(_access)]

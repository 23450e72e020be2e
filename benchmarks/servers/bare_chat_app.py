"""The demo model behind a bare StreamingResponse: the objects of the chat server, with no log, store or statistics."""

import time
from collections.abc import AsyncIterator
from uuid import uuid4

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic_core import to_json

from tailrace.chat.models.base import Message
from tailrace.chat.models.demo import DemoModel
from tailrace.chat.objects import ChatRequest
from tailrace.chat.settings import ChatSettings
from tailrace.client import ChatObject, Chunk, Complete, SessionInfo, Status

app = FastAPI()
settings = ChatSettings()
model = DemoModel(settings.demo_words, settings.demo_pace)


@app.post("/chat/stream")
async def chat(request: ChatRequest) -> StreamingResponse:
    return StreamingResponse(lines(request), media_type="application/x-ndjson")


async def lines(request: ChatRequest) -> AsyncIterator[bytes]:
    async for item in objects(request):
        yield to_json(item, exclude_none=True) + b"\n"


async def objects(request: ChatRequest) -> AsyncIterator[ChatObject]:
    session_id, began, number = str(request.session_id or uuid4()), time.perf_counter(), 0
    yield SessionInfo(session_id=session_id, stream_id=uuid4().hex, model=model.name)
    yield Status(message="Generating response… (1 message in context)", context_messages=1, dropped_messages=0)
    async for piece in model.reply([Message("user", request.message)]):
        if isinstance(piece, str):
            number += 1
            yield Chunk(text=piece, chunk_number=number, is_final=False)
    yield Chunk(text="", chunk_number=number + 1, is_final=True)
    yield Complete(
        total_chunks=number + 1,
        processing_time=time.perf_counter() - began,
        message_count=2,
        session_id=session_id,
        state="complete",
    )

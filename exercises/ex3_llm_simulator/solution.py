"""A model that is free and always gives the same reply."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from tailrace import OpenAIChunks, StreamResponse, StreamSettings

app = FastAPI()

MODELS = ("loud-1", "loud-2")
SETTINGS = {model: StreamSettings(wires=[OpenAIChunks(model)], grace=0) for model in MODELS}


class Message(BaseModel):
    role: str
    content: str


class Completion(BaseModel):
    model: str
    messages: list[Message]
    stream: Literal[True]


async def tokens(messages: list[Message]) -> AsyncIterator[str]:
    space = ""
    for word in messages[-1].content.upper().split():
        yield space + word
        space = " "
        await asyncio.sleep(0.01)


@app.post("/v1/chat/completions", response_model=None)
async def complete(completion: Completion) -> Response:
    if completion.model not in MODELS:
        raise HTTPException(404, f"expected one of the models {', '.join(MODELS)}, but got {completion.model!r}")
    return StreamResponse(tokens(completion.messages), SETTINGS[completion.model])

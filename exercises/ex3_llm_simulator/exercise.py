"""A model that is free and always gives the same reply."""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel

app = FastAPI()

MODELS = ("loud-1", "loud-2")


class Message(BaseModel):
    role: str
    content: str


class Completion(BaseModel):
    model: str
    messages: list[Message]
    stream: Literal[True]


async def tokens(messages: list[Message]) -> AsyncIterator[str]:
    raise NotImplementedError("yield the last message in upper case, word by word")
    yield ""


@app.post("/v1/chat/completions", response_model=None)
async def complete(completion: Completion) -> Response:
    raise NotImplementedError("stream the tokens, or refuse an unknown model")

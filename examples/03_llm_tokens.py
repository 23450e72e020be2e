"""Tokens as `chat.completion.chunk` objects, for OpenAI's SDK and other clients of that API.

    $ curl -sN http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
        -d '{"stream": true, "messages": [{"role": "user", "content": "good morning"}]}' | grep -o '"delta".*'
    "delta":{"role":"assistant","content":""},"finish_reason":null}]}
    "delta":{"content":"You"},"finish_reason":null}]}
    "delta":{"content":" said:"},"finish_reason":null}]}
    "delta":{"content":" good"},"finish_reason":null}]}
    "delta":{"content":" morning"},"finish_reason":null}]}
    "delta":{},"finish_reason":"stop"}]}

The stream ends with `data: [DONE]`. Without "stream": true, the client gets one object:

    $ curl -s http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
        -d '{"messages": [{"role": "user", "content": "good morning"}]}' | grep -o '"content":"[^"]*"'
    "content":"You said: good morning"

To use OpenAI's SDK, create the client as `openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tailrace import OpenAIChunks, StreamResponse, StreamSettings

app = FastAPI(title="LLM tokens")

# Create the wire once, not for each response. With `grace=0`, the generator is cancelled when its client disconnects.
settings = StreamSettings(wires=[OpenAIChunks("echo")], grace=0)


class Message(BaseModel):
    role: str
    content: str


class Completion(BaseModel):
    messages: list[Message]
    stream: bool = False


async def tokens(messages: list[Message]) -> AsyncIterator[str]:
    """Yield the reply of a model that repeats the last message."""
    yield "You"
    yield " said:"
    for word in messages[-1].content.split():
        await asyncio.sleep(0.05)
        yield f" {word}"


@app.post("/v1/chat/completions", response_model=None)
async def complete(completion: Completion) -> StreamResponse | dict[str, Any]:
    if completion.stream:
        return StreamResponse(tokens(completion.messages), settings)
    text = "".join([token async for token in tokens(completion.messages)])
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    head = {"id": f"chatcmpl-{secrets.token_urlsafe(16)}", "object": "chat.completion", "created": int(time.time())}
    return {**head, "model": "echo", "choices": [choice]}


if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

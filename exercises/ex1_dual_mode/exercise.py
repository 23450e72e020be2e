"""Return a document or a stream from the same address."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response

app = FastAPI()


async def find_squares(n: int) -> AsyncIterator[int]:
    for number in range(1, n + 1):
        yield number * number
        await asyncio.sleep(0.01)


@app.get("/squares", response_model=None)
async def squares(request: Request, n: int = 5) -> Response | dict[str, list[int]]:
    raise NotImplementedError("return the squares as a document or a stream")

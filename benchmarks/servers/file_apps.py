"""One file, whose path comes from the environment, in three ways."""

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import FileResponse as StarletteFileResponse
from fastapi.responses import StreamingResponse

from tailrace import FileResponse

PATH = os.environ["DOWNLOAD"]
PIECE = 4096

loop_app = FastAPI()
starlette_app = FastAPI()
tailrace_app = FastAPI()


async def pieces() -> AsyncIterator[bytes]:
    """Read as aiofiles does: each read is a call in the event loop's thread pool."""
    loop = asyncio.get_running_loop()
    with open(PATH, "rb") as file:
        while piece := await loop.run_in_executor(None, file.read, PIECE):
            yield piece


@loop_app.get("/download.bin")
async def read_in_a_loop() -> StreamingResponse:
    return StreamingResponse(pieces(), headers={"Content-Length": str(os.stat(PATH).st_size)})


@starlette_app.get("/download.bin")
async def send_by_starlette() -> StarletteFileResponse:
    return StarletteFileResponse(PATH)


@tailrace_app.get("/download.bin")
async def send_by_tailrace() -> FileResponse:
    return FileResponse(PATH)

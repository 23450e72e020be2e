"""An application that sends files from a folder."""

import os

from fastapi import FastAPI

from tailrace import FileResponse

app = FastAPI()


@app.api_route("/{name:path}", methods=["GET", "HEAD"])
async def send(name: str) -> FileResponse:
    return FileResponse(name, root=os.environ["FOLDER"])

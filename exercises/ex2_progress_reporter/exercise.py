"""Report the progress of a job to readers that come and go."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tailrace import Event, StreamRouter

app = FastAPI()
router = StreamRouter()


class Report(BaseModel):
    pages: int


class PrinterError(Exception):
    pass


async def make_page(number: int) -> int:
    """Make a page and return its size. The thirteenth page always fails."""
    await asyncio.sleep(0.05)
    if number == 13:
        raise PrinterError("page 13 is out of paper")
    return 10


@router.stream("/reports", methods=["POST"])
async def report(report: Report) -> AsyncIterator[Event[dict[str, Any]]]:
    raise NotImplementedError("make the pages and report each one")
    yield Event({}, event="progress")


app.include_router(router)

"""A reader slower than the producer: it waits (block), skips to the newest (latest) or is told its loss (drop).

Each stream is 1,500 readings of 16 KB, made much faster than the 4 or 8 MB a second that curl takes. Under `block` the
producer waits and every reading arrives, one id each and one for the end:

    $ curl -sN --limit-rate 8M "http://127.0.0.1:8000/block?stream=true" | grep -c "^id: "
    1501

Under `latest` the reader gets the newest reading each time it comes back; the last one always arrives:

    $ curl -sN --limit-rate 4M "http://127.0.0.1:8000/latest?stream=true" | grep ^data | tail -2 | cut -c -20
    data: {"number":1500
    data: {}

Under `drop` an event says how many readings are missing:

    $ curl -sN --limit-rate 4M "http://127.0.0.1:8000/drop?stream=true" | grep -m 1 "^event: "
    event: dropped

The response names its stream's address, and there are the log's figures, such as `dropped` and `conflated`:

    $ curl -sNo stream.txt -w "%header{content-location}\\n" --limit-rate 4M "http://127.0.0.1:8000/drop?stream=true"
    /drop/cJpuvNHR12iDBLA8a91L5A
    $ curl -s http://127.0.0.1:8000/drop/cJpuvNHR12iDBLA8a91L5A/statistics
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from tailrace import Engine, Flow, LogStatistics, StreamRouter

engine = Engine()
router = StreamRouter(engine=engine)


class Reading(BaseModel):
    number: int
    noise: str = "~" * 16_000


async def readings() -> AsyncIterator[Reading]:
    """Readings as fast as they come, whoever listens."""
    for number in range(1, 1_501):
        yield Reading(number=number)
        await asyncio.sleep(0)


@router.stream("/block", flow=Flow.block(high=64))
def block() -> AsyncIterator[Reading]:
    return readings()


@router.stream("/latest", flow=Flow.latest())
def latest() -> AsyncIterator[Reading]:
    return readings()


@router.stream("/drop", flow=Flow.drop(high=64))
def drop() -> AsyncIterator[Reading]:
    return readings()


@router.get("/{policy}/{stream_id}/statistics")
async def statistics(policy: str, stream_id: str) -> LogStatistics:
    if (log := await engine.find(f"/{policy}/{stream_id}")) is None:
        raise HTTPException(404, "expected a stream that runs or ended lately")
    return log.statistics()


app = FastAPI(title="Backpressure")
app.include_router(router)

if __name__ == "__main__":
    from _run import run  # type: ignore[import-not-found]  # beside this file, where only a script finds it

    run(app)

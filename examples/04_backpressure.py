"""Three flow policies for slow clients: block, latest and drop.

Each stream has 1,500 readings of 16 KB. The server produces them much faster than curl reads them here. Under `block`,
the producer waits and every reading arrives. Each has an id, and so has the end:

    $ curl -sN --limit-rate 8M "http://127.0.0.1:8000/block?stream=true" | grep -c "^id: "
    1501

Under `latest`, the client skips to the newest reading. The last one always arrives:

    $ curl -sN --limit-rate 4M "http://127.0.0.1:8000/latest?stream=true" | grep ^data | tail -2 | cut -c -20
    data: {"number":1500
    data: {}

Under `drop`, an event tells the client how many readings it has missed:

    $ curl -sN --limit-rate 4M "http://127.0.0.1:8000/drop?stream=true" | grep -m 1 "^event: "
    event: dropped

The response names the address of its stream. Below it, this example returns the statistics of the stream's log:

    $ drop="http://127.0.0.1:8000/drop?stream=true"
    $ address=$(curl -sNo /dev/null -w "%header{content-location}" --limit-rate 4M "$drop")
    $ curl -s "http://127.0.0.1:8000$address/statistics" | grep -o '"dropped":.*'
    "dropped":1143,"conflated":0,"resets":0}
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
    """Yield readings without a pause."""
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
        raise HTTPException(404, "expected the id of a stream that is running or has just ended")
    return log.statistics()


app = FastAPI(title="Backpressure")
app.include_router(router)

if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

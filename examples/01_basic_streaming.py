"""One generator function as JSON, Server-Sent Events, NDJSON, plain text and a WebSocket.

The first answer waits for the end, the others come line by line:

    $ curl -s "http://127.0.0.1:8000/countdown?n=2"
    {"data":[{"left":2},{"left":1}]}
    $ curl -sN -H "Accept: text/plain" "http://127.0.0.1:8000/countdown?n=2"
    {"left":2}
    {"left":1}
    $ curl -sN -H "Accept: application/x-ndjson" "http://127.0.0.1:8000/countdown?n=1"
    {"id":"rkKZZxdIPUFTbrPizAzBYQ.jUkJvvFn.1","data":{"left":1}}
    {"id":"rkKZZxdIPUFTbrPizAzBYQ.jUkJvvFn.1.end","event":"done","data":{}}
    $ curl -sN "http://127.0.0.1:8000/countdown?n=2&stream=true"
    id: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.1
    data: {"left":2}

    id: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.2
    data: {"left":1}

    id: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.2.end
    event: done
    data: {}

An id is a cursor. With the first one in hand, this reads the rest of that same stream, not a new one:

    $ curl -sN -H "Last-Event-ID: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.1" "http://127.0.0.1:8000/countdown?stream=true"
    id: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.2
    data: {"left":1}

    id: 9E_ToNQWIE0eA4vaCDMr8g.ObmsHKRF.2.end
    event: done
    data: {}

A WebSocket is at the same path: python -m websockets "ws://127.0.0.1:8000/countdown"
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from pydantic import BaseModel

from tailrace import StreamRouter

router = StreamRouter()


class Tick(BaseModel):
    left: int


@router.stream("/countdown", websocket=True)
async def countdown(n: int = 10) -> AsyncIterator[Tick]:
    """Count down to one, a tick a second."""
    for left in range(n, 0, -1):
        yield Tick(left=left)
        await asyncio.sleep(1)


app = FastAPI(title="Basic streaming")
app.include_router(router)

if __name__ == "__main__":
    from _run import run  # type: ignore[import-not-found]  # beside this file, where only a script finds it

    run(app)

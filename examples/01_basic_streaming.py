"""One generator function as JSON, Server-Sent Events, NDJSON, plain text and a WebSocket.

By default, the client gets one document when the function has finished. `Accept` asks for a stream instead:

    $ curl -s "http://127.0.0.1:8000/countdown?n=2"
    {"data":[{"left":2},{"left":1}]}
    $ curl -sN -H "Accept: text/plain" "http://127.0.0.1:8000/countdown?n=2"
    {"left":2}
    {"left":1}
    $ curl -sN -H "Accept: application/x-ndjson" "http://127.0.0.1:8000/countdown?n=1"
    {"id":"rkKZZxdIPUFTbrPizAzBYQ.0.1","data":{"left":1}}
    {"id":"rkKZZxdIPUFTbrPizAzBYQ.0.1.end","event":"done","data":{}}
    $ curl -sN "http://127.0.0.1:8000/countdown?n=2&stream=true"
    id: 9E_ToNQWIE0eA4vaCDMr8g.0.1
    data: {"left":2}

    id: 9E_ToNQWIE0eA4vaCDMr8g.0.2
    data: {"left":1}

    id: 9E_ToNQWIE0eA4vaCDMr8g.0.2.end
    event: done
    data: {}

An id is a cursor. Here the client disconnects after the first event, then resumes the same stream with the cursor:

    $ first=$(curl -sN "http://127.0.0.1:8000/countdown?n=2&stream=true" | grep -m 1 "^id: " | cut -c 5-)
    $ curl -sN -H "Last-Event-ID: $first" "http://127.0.0.1:8000/countdown?stream=true"
    id: BrYkUxqH4zJzxPF6DritLw.0.2
    data: {"left":1}

    id: BrYkUxqH4zJzxPF6DritLw.0.2.end
    event: done
    data: {}

The same path accepts a WebSocket: python -m websockets "ws://127.0.0.1:8000/countdown"
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
    """Count down to one, one tick per second."""
    for left in range(n, 0, -1):
        yield Tick(left=left)
        await asyncio.sleep(1)


app = FastAPI(title="Basic streaming")
app.include_router(router)

if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

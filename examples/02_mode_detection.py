"""One address that returns a document or a stream, as `?stream=` or `Accept` asks.

`/mode` returns what a request asks for. The query takes precedence over the header. Without either, it is a document:

    $ curl -s http://127.0.0.1:8000/mode
    {"mode":"batch"}
    $ curl -s -H "Accept: text/event-stream" http://127.0.0.1:8000/mode
    {"mode":"stream"}
    $ curl -s -H "Accept: text/event-stream;q=0.1, application/json" http://127.0.0.1:8000/mode
    {"mode":"batch"}
    $ curl -s -H "Accept: text/event-stream" "http://127.0.0.1:8000/mode?stream=false"
    {"mode":"batch"}

`/words` uses this decision to build its document in another way: sorted, and without a generator:

    $ curl -s "http://127.0.0.1:8000/words?text=to+be+or+not+to+be"
    {"data":["be","not","or","to"]}
    $ curl -sN "http://127.0.0.1:8000/words?text=to+be+or+not+to+be&stream=true" | grep data
    data: "to"
    data: "be"
    data: "or"
    data: "not"
    data: {}

The last line is the data of the event `done`. `/words/routed` leaves the choice to a StreamRouter, whose document holds
everything that the stream holds:

    $ curl -s "http://127.0.0.1:8000/words/routed?text=to+be+or+not+to+be"
    {"data":["to","be","or","not"]}
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request

from tailrace import ResponseMode, StreamResponse, StreamRouter, detect_mode

app = FastAPI(title="Mode detection")
router = StreamRouter()


@app.get("/mode")
async def mode(request: Request) -> dict[str, ResponseMode]:
    return {"mode": detect_mode(request)}


async def first_seen(text: str) -> AsyncIterator[str]:
    """Yield each word when it first occurs."""
    seen = set()
    for word in text.split():
        if word not in seen:
            seen.add(word)
            yield word
            await asyncio.sleep(0.2)


@app.get("/words", response_model=None)
async def words(request: Request, text: str) -> StreamResponse | dict[str, list[str]]:
    if detect_mode(request) is ResponseMode.STREAM:
        return StreamResponse(first_seen(text))
    return {"data": sorted(set(text.split()))}


@router.stream("/words/routed")
async def routed(text: str) -> AsyncIterator[str]:
    async for word in first_seen(text):
        yield word


app.include_router(router)

if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

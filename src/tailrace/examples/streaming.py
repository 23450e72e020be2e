"""A form whose answer is a stream, in one file.

    python -m tailrace.examples.streaming

Open http://127.0.0.1:8000 and send a message. The answer survives a lost connection and a reload of the page. Or ask
the endpoint itself:

    curl -N http://127.0.0.1:8000/ask -F message="Hello there"
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from tailrace import create_streaming_endpoint, get_streaming_html, get_streaming_js

app = FastAPI(title="Streaming")


async def answer(message: str) -> AsyncIterator[str]:
    yield "You wrote:"
    for word in message.split():
        await asyncio.sleep(0.2)
        yield f" {word}"


create_streaming_endpoint(app, "/ask", answer)

PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Streaming</title>
<main>
<h1>Streaming</h1>
{get_streaming_html("ask", "Your message")}
</main>
{get_streaming_js("ask", "/ask")}
</html>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

"""The chat server with a model that writes as many pieces as it is asked for, and a page that only appends them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from fastapi.responses import HTMLResponse

from benchmarks.clients.rendering import cut, reply
from tailrace.chat.app import create_app
from tailrace.chat.models.base import Message, Model, Piece

PACE = 0.02
"""Seconds between the pieces."""

PLAIN = """\
<!doctype html>
<meta charset="utf-8">
<title>Only the text</title>
<script type="module">
  globalThis.ask = async (message) => {
    const headers = {"Content-Type": "application/json", Accept: "application/x-ndjson"};
    const response = await fetch("/chat/stream", {method: "POST", headers, body: JSON.stringify({message})});
    const place = document.body.appendChild(document.createElement("p"));
    let rest = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\\n");
      rest = lines.pop();
      for (const {type, text} of lines.map(JSON.parse)) if (type === "chunk") place.textContent += text;
    }
  };
</script>
"""


class Writer(Model):
    name = "writer"

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        for piece in cut(reply(), int(conversation[-1].text)):
            await asyncio.sleep(PACE)
            yield piece


app = create_app(model=Writer())


@app.get("/plain")
async def plain() -> HTMLResponse:
    return HTMLResponse(PLAIN)

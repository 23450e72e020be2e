"""A page made from a template, with two forms, a dependency, a guard and a strict Content-Security-Policy.

    python -m tailrace.examples.demo

Open http://127.0.0.1:8000 and send both forms. Reload the page while the answers arrive, disconnect from the network,
or stop an answer. To see a failure, count down from 20.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from tailrace import StreamError, create_streaming_endpoint, get_streaming_html, get_streaming_js, javascript_client

PAGES = Path(__file__).parent / "pages"

app = FastAPI(title="Streaming forms")
app.mount("/static", StaticFiles(directory=PAGES / "static"), name="static")
app.mount("/js", javascript_client())

templates = Jinja2Templates(PAGES)
templates.env.globals.update(streaming_html=get_streaming_html, streaming_js=get_streaming_js)

PACE = 0.1
"""Seconds between the words of a story."""

STORY = """\
Once there was {}. It lived where the river leaves the hills, beside a mill whose wheel had never stopped.

One night the wheel stood still. The miller looked for the water, and found none: somewhere above, the river had broken
off in the middle of a sentence.

So {} walked upstream, past the last house and the last fence, and counted each stone on the way. At the source it said
the number of the last stone. And the river, which keeps a log of everything, went on from exactly there.
"""


async def own_pages_only(sec_fetch_site: Annotated[str, Header()] = "none") -> None:
    """Refuse requests that pages of other sites send. This guard returns nothing, so the processors get no value."""
    if sec_fetch_site == "cross-site":
        raise HTTPException(403, "This form belongs to another page.")


async def greeting(accept_language: Annotated[str, Header()] = "en") -> str:
    """Choose a greeting. The processors get it after the message."""
    return {"de": "Hallo", "es": "Hola", "fr": "Bonjour"}.get(accept_language[:2].lower(), "Hello")


async def tell(message: str, greeting: str) -> AsyncIterator[str]:
    """Tell a story, word by word."""
    yield f"{greeting}!\n\n"
    for word in re.findall(r"\S*\s*", STORY.format(message, message)):
        await asyncio.sleep(PACE)
        yield word


async def count_down(message: str, greeting: str) -> AsyncIterator[str]:
    """Count down to zero, unless 13 comes up."""
    if not message.isdecimal() or int(message) > 1000:
        raise StreamError(f"expected a number from 0 to 1000, but got {message!r:.40}", code="not_a_number")
    for number in range(int(message), 0, -1):
        if number == 13:
            raise StreamError("This counter is superstitious and stops before 13.", code="bad_luck")
        yield f"{number}\n"
        await asyncio.sleep(0.5)
    yield f"0. {greeting}!"


for path, processor in (("/tell", tell), ("/count", count_down)):
    create_streaming_endpoint(app, path, processor, dependencies=[own_pages_only, greeting])


@app.get("/", response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; connect-src 'self'; base-uri 'none'"
    return templates.TemplateResponse(
        request, "demo.html", {"nonce": nonce}, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    )


if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(app)

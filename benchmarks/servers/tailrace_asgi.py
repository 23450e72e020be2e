"""tailrace as a plain ASGI endpoint, with no framework around it."""

from starlette.types import Receive, Scope, Send

from benchmarks.servers.reading import Reading
from tailrace import Engine, Log, StreamResponse

engine = Engine()


async def feed() -> Log:
    return await engine.log("feed")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "POST":
        await publish(receive, send)
    else:
        response = StreamResponse(await feed(), engine=engine)
        await response(scope, receive, send)


async def publish(receive: Receive, send: Send) -> None:
    message = await receive()
    log = await feed()
    await log.append(Reading.model_validate_json(message["body"]))
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

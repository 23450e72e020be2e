"""Pages of other sites, in the browser of someone who can reach a server."""

from __future__ import annotations

from typing import Any

import pytest
import websockets
from pydantic_core import from_json
from starlette.responses import PlainTextResponse

from tailrace import OriginGuard
from tests.raw import fetch
from tests.serving import serving

PAGE = "https://page.example"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything that gets here."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
    else:
        await PlainTextResponse("yours")(scope, receive, send)


async def status(guard: OriginGuard, method: str = "POST", **headers: str) -> int:
    """What a request gets, by its status."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await guard({"type": "http", "method": method, "path": "/", "headers": pairs}, receive, send)
    found: int = sent[0]["status"]
    return found


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("me:8000", None, 200),
        ("me:8000", "http://me:8000", 200),
        ("Me:8000", "http://mE:8000", 200),
        ("me", "https://me", 200),  # behind a proxy that adds TLS
        ("me:443", "https://me", 200),
        ("me:80", "http://me", 200),
        ("me", "x://me", 200),
        ("me", "x://me:1", 403),
        ("me:8000", "http://me", 403),
        ("me:8000", "http://me:1", 403),
        ("me", PAGE, 403),
        ("me", "https://me.page.example", 403),
        ("me", "null", 403),
        ("me", "", 403),
        ("me", "\xe9", 403),
        ("me", "me", 403),
    ],
)
async def test_a_page_is_of_the_host_that_it_asks(host: str, origin: str | None, expected: int) -> None:
    headers = {"host": host, **({} if origin is None else {"origin": origin})}
    assert await status(OriginGuard(application), **headers) == expected


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
async def test_a_method_that_changes_nothing_is_open_to_all(method: str) -> None:
    assert await status(OriginGuard(application), method, host="me", origin=PAGE) == 200


@pytest.mark.parametrize(("origins", "other"), [([PAGE], 403), (["*"], 200)])
async def test_origins_are_named(origins: list[str], other: int) -> None:
    guard = OriginGuard(application, origins=origins)
    assert await status(guard, host="me", origin=PAGE) == 200
    assert await status(guard, host="me", origin="https://other.example") == other


FOREIGN = [
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::1",
    "a:b:c",
    ":80",
]


@pytest.mark.parametrize(
    ("hosts", "known", "foreign"),
    [
        ([], ["127.0.0.1", "10.1.2.3:80", "[::1]:8000", "[fe80::2]", "localhost", "LocalHost.", ""], FOREIGN),
        (["chat.example"], ["chat.example", "Chat.Example.:8000", "localhost"], FOREIGN),
        (["*"], FOREIGN, []),
        (None, FOREIGN, []),
    ],
)
async def test_hosts_are_named(hosts: list[str] | None, known: list[str], foreign: list[str]) -> None:
    guard = OriginGuard(application, hosts=hosts)
    assert {await status(guard, "GET", host=host) for host in known} == {200}
    assert {await status(guard, "GET", host=host) for host in foreign} <= {421}


async def test_a_refusal_is_bounded_counted_and_says_what_it_is() -> None:
    codes: list[str] = []
    async with serving(OriginGuard(application, hosts=[], on_refusal=codes.append)) as url:
        answer, body = await fetch(url, "/", {"Origin": "https://" * 99}, method="POST")
        assert (answer.status, from_json(body)["code"]) == (403, "foreign_origin")
        assert len(body) < 300
    assert await status(OriginGuard(application, hosts=[], on_refusal=codes.append), host="e" * 999) == 421
    assert codes == ["foreign_origin", "unknown_host"]


async def test_a_websocket_is_guarded_as_an_unsafe_method_is() -> None:
    async with serving(OriginGuard(application), lifespan="off") as url:
        address = url.replace("http", "ws", 1)
        async with websockets.connect(address):
            pass
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(address, origin=websockets.Origin(PAGE)):
                pass

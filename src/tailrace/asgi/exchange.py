"""HTTP requests that a WebSocket makes of its own application, and their responses."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Scope

from ..wire.base import Frame, frame_members
from ..wire.ndjson import NDJSON
from .reply import Header

logger = logging.getLogger("tailrace")

JSON = b"application/json"
LINES = NDJSON.media_type.encode()

MAX_TOLD = 16 << 10
"""The most bytes of a refusal that a message to the client repeats."""

WAIT_AT_LEAST, WAIT_AT_MOST = 0.05, 30.0
"""The seconds that the bridge waits if `Retry-After` says less or more."""

_KEY = b"idempotency-key"
_KEPT = ("app", "asgi", "http_version", "server", "client", "root_path", "app_root_path", "state")
# Headers of the WebSocket handshake, and headers that would change the response that the bridge reads.
_LEFT_OUT = re.compile(rb"accept|accept-encoding|connection|upgrade|sec-websocket-.*|content-.*|transfer-encoding")
# RFC 8288, section 3. A comma inside quotes does not end a link.
_LINK = re.compile(r'<([^>]*)>((?:[^,"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s;"]+))')


@dataclass(slots=True)
class Answer:
    """The application's response to one request, as far as it has come."""

    status: int = 0
    headers: Iterable[Header] = ()
    body: bytes = b""

    def link(self, relation: str) -> str | None:
        """Return the address at this application that the `Link` headers name with a relation."""
        links = ",".join(value.decode("latin-1") for name, value in self.headers if name == b"link")
        for target, parameters in _LINK.findall(links):
            if relation in _relations(parameters) and re.match("/(?!/)", target):
                return str(target)
        return None

    @property
    def retry_after(self) -> float | None:
        """The seconds after which the application asks for the same request again, or None for any other answer."""
        value = self._header(b"retry-after")
        if self.status not in (429, 503) or not value:
            return None
        # A date counts as a long wait.
        seconds = float(value) if value.isdigit() else WAIT_AT_MOST
        return min(max(seconds, WAIT_AT_LEAST), WAIT_AT_MOST)

    def as_message(self, event: str) -> str:
        """Return the message that tells a client of this refusal.

        A line of NDJSON is in the language of the stream, so it stays as it is. Anything else is summarised by an event
        of this name.
        """
        line = self.body.strip()
        is_line = self._header(b"content-type").partition(b";")[0] == LINES and b"\n" not in line
        if is_line and 0 < len(line) <= MAX_TOLD:
            return line.decode("utf-8", "replace")
        return frame_members(Frame(self._gist(), event)).decode()

    def _header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key == name), b"").strip()

    def _gist(self) -> dict[str, Any]:
        """Return the data of the event. FastAPI's `detail` is a string or a list of errors."""
        try:
            members = from_json(self.body)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            members = {"detail": self.body[:MAX_TOLD].decode("utf-8", "replace")}
        detail = members.get("detail", "")
        told = {"message": detail} if isinstance(detail, str) else {"message": f"HTTP {self.status}", "detail": detail}
        return {"code": members.get("code", f"http_{self.status}"), "status": self.status, **told}


def _relations(parameters: str) -> list[str]:
    for name, quoted, token in _PARAMETER.findall(parameters):
        if name.lower() == "rel":
            return str(quoted or token).lower().split()
    return []


def http_scope(socket: Scope, method: str, path: str, query: bytes, *, media_type: bytes = JSON) -> dict[str, Any]:
    """Return the scope of an HTTP request by a WebSocket's client, with a body of `media_type`."""
    kept = {key: socket[key] for key in _KEPT if key in socket}
    headers = [pair for pair in socket["headers"] if not _LEFT_OUT.fullmatch(pair[0])]
    headers += [(b"accept", LINES), (b"content-type", media_type)]
    return {
        **kept,
        "type": "http",
        "method": method,
        "scheme": "https" if socket.get("scheme") == "wss" else "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "headers": headers,
        "extensions": {},
    }


async def post(
    app: ASGIApp, socket: Scope, address: str, body: bytes = b"", *, media_type: bytes = JSON, key: bytes = b""
) -> Answer:
    """POST `body` to an address of the application, with an Idempotency-Key if there is one.

    An error that the application raises is logged, and a 500.
    """
    url = urlsplit(address)
    scope = http_scope(socket, "POST", unquote(url.path), url.query.encode(), media_type=media_type)
    # The handshake's key, if it has one, names the stream and not what is sent to it.
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _KEY]
    if key:
        scope["headers"].append((_KEY, key))
    exchange = _Exchange(body)
    try:
        await app(scope, exchange.receive, exchange.send)
    except Exception:  # any error of the application: the stream continues
        logger.exception("%s: a POST for a WebSocket failed", scope["path"])
        return Answer(500, body=b"Internal Server Error")
    return exchange.answer


class _Exchange:
    """One request and its answer, without a network."""

    def __init__(self, body: bytes) -> None:
        self.answer = Answer()
        self._body: bytes | None = body
        self._complete = asyncio.Event()

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        # As a server does, keep the application waiting until it has answered.
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        answer = self.answer
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], message.get("headers", ())
            return
        if len(answer.body) <= MAX_TOLD:
            answer.body += message.get("body", b"")
        if not message.get("more_body", False):
            self._complete.set()

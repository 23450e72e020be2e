"""Addresses, redirections, and requests that have one answer."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit, urlunsplit

from .errors import StreamRefused, Unreachable, redirection, refusal
from .settings import Backoff, Deadline, Loss, Overdue, Retry, Spent, read_retry_after
from .transport import Close, Command, Failed, Flow, Open, Opened, Read, Sleep

UNAVAILABLE = frozenset({429, 502, 503, 504})
"""The statuses that mean: try again."""
NOT_DEALT_WITH = frozenset({429, 503})
"""The statuses among them that also mean that the request has started nothing."""

MAX_REFUSAL = 1 << 16
MAX_ANSWER = 64 << 20
"""The most bytes to read of an answer's body, and of a refusal's."""
MAX_REDIRECTS = 10

UNKNOWN = "it is unknown whether the request has arrived"

# Addresses

# A URI in angle brackets, then parameters. The value of `rel` is one or more words (RFC 8288, sections 3 and 3.3).
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:"[^"]*"|[^\s",;]+))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))', re.IGNORECASE)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def check_url(url: str, *, is_whole: bool = True, sockets: bool = True) -> None:
    """Raise ValueError if nothing can be requested at a URL. Unless `is_whole`, a client may know the rest of it.

    `sockets`: whether the URL may be that of a WebSocket.
    """
    # Import it here, so that modules that only read addresses need not wait for it.
    import httpx

    try:
        urlsplit(url)
        parts = httpx.URL(url)
        expected = _missing_in(parts, is_whole, sockets)
        # A resolver will encode the name like this.
        parts.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"expected a URL, but got {url[:80]!r}: {error}") from None
    if expected is not None:
        raise ValueError(f"expected a URL with {expected}, but got {url[:80]!r}")


def _missing_in(parts: Any, is_whole: bool, sockets: bool) -> str | None:
    if not is_whole and not parts.scheme:
        return None
    if not sockets and parts.scheme not in ("http", "https"):
        return "http or https"
    if parts.scheme not in _PORTS:
        return "one of http, https, ws or wss"
    if not parts.host:
        return "a host"
    return None if parts.port is None or 0 < parts.port < 1 << 16 else "a port from 1 to 65535"


def stop_link(header: str) -> str | None:
    """Return the target with the relation `stop` in the value of a Link header."""
    for link in _LINK.finditer(header):
        rel = _REL.search(link[2])
        if rel is not None and "stop" in (rel[1] or rel[2] or "").lower().split():
            return link[1]
    return None


def named_address(reference: str | None, *, by: str, asked: str) -> str | None:
    """Return the address that a response from the URL `by` names, if it may get the headers for `asked`."""
    if reference is None:
        return None
    try:
        address = urljoin(by, reference)
        check_url(address)
    except ValueError:  # do not give up a readable stream for an unreadable header
        return None
    origin = _origin(address)
    return address if origin == _origin(asked) or (origin == _origin(by) and is_same(asked, by)) else None


def is_same(asked: str, other: str) -> bool:
    """Tell whether `other` may get what was meant for `asked`: it has the same origin, or is its default for TLS.

    The second case is a server that redirects from http:// to https://. httpx allows it too.
    """
    one, two = _origin(asked), _origin(other)
    return one == two or (one[1] == two[1] and (one[0], one[2], two[0], two[2]) in _BY_TLS)


_Origin = tuple[str, str | None, int | None]
_BY_TLS = {("http", 80, "https", 443), ("ws", 80, "wss", 443)}


def _origin(url: str) -> _Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def with_parameter(url: str, name: str, value: str) -> str:
    """Return the URL with a parameter, which replaces all others with its name."""
    parts = urlsplit(url)
    query = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] != name]
    return urlunsplit(parts._replace(query="&".join([*query, urlencode({name: value})])))


def with_parameters(url: str, params: Mapping[str, Any] | None) -> str:
    """Return the URL with added parameters. A list means several values, and None means no value."""
    said = {name: _spelled(value) for name, value in (params or {}).items() if value is not None}
    if not said:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode(said, doseq=True)]))))


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_spelled(each) for each in value if each is not None] if isinstance(value, list | tuple) else value


# Redirections

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Any other header may be a secret, whatever its name, so only the intended origin gets it.
_FOR_ANY_ORIGIN = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "cache-control", "idempotency-key", "last-event-id"),
        *("content-encoding", "content-language", "content-type"),
    }
)


def send(request: Open, deadline: Deadline) -> Flow[Opened | Failed]:
    """Send a request and follow redirections, all within the deadline. Never read the bodies of redirections."""
    asked: str | None = None
    for _ in range(MAX_REDIRECTS + 1):
        head = yield bounded(request, deadline)
        if isinstance(head, Failed):
            return head
        assert isinstance(head, Opened), head
        asked = asked or head.url
        location = head.headers.get("location")
        if location is None or head.status not in _REDIRECTS or not head.follows:
            return replace(head, asked=asked)
        yield Close()
        try:
            request = _redirected(request, head, location)
        except ValueError as error:
            return Failed(Loss("misled", "the server redirects to an impossible address", str(error)), final=True)
    return Failed(Loss("misled", f"the server redirects endlessly, more than {MAX_REDIRECTS} times"), final=True)


def bounded(request: Open, deadline: Deadline) -> Open:
    """Return the request with timeouts within the deadline. Raise Overdue if there is no time left."""
    if deadline.is_never:
        return request
    within = deadline.within
    return replace(request, connect=within(request.connect), idle=within(request.idle), within=within(request.within))


def hurried(command: Command, deadline: Deadline) -> Command:
    """Return a command that ends within the deadline. Raise Overdue if there is no time left."""
    if isinstance(command, Open):
        return bounded(command, deadline)
    if isinstance(command, Read):
        return Read(deadline.within(math.inf if command.within is None else command.within))
    return Sleep(deadline.within(command.seconds)) if isinstance(command, Sleep) else command


def _redirected(request: Open, head: Opened, location: str) -> Open:
    """Return the next request after a redirection (RFC 9110, section 15.4)."""
    url = urldefrag(urljoin(head.url, location)).url
    check_url(url)
    here, there = urlsplit(head.url).scheme, urlsplit(url).scheme
    if here.startswith("ws") != there.startswith("ws"):
        raise ValueError(f"expected an address with {'ws or wss' if here.startswith('ws') else 'http or https'}: {url}")
    if (here, there) == ("wss", "ws"):
        raise ValueError(f"expected an address with TLS, as before: {url}")
    is_foreign = request.is_foreign or not is_same(head.url, url)
    # As in browsers, a redirected POST becomes a GET.
    is_get = head.status == 303 or (head.status in (301, 302) and request.method == "POST")
    method, content = ("GET", None) if is_get and request.method != "HEAD" else (request.method, request.content)
    headers = {
        name: value
        for name, value in request.headers.items()
        if (not is_foreign or name in _FOR_ANY_ORIGIN) and not (content is None and name.startswith("content-"))
    }
    return replace(request, method=method, url=url, headers=headers, content=content, is_foreign=is_foreign)


# Requests with one answer


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def read_body(limit: int, deadline: Deadline) -> Flow[bytes | Failed]:
    """Read the body of a response, up to about `limit` bytes of it."""
    body = bytearray()
    while len(body) < limit:
        if (left := deadline.left) == 0:
            return Failed(Loss("overdue", "the answer has not ended in time"))
        reply = yield Read(left)
        if isinstance(reply, Failed):
            return reply
        if not isinstance(reply, bytes):
            break
        body += reply
    return bytes(body)


def read_refusal(head: Opened, deadline: Deadline) -> Flow[StreamRefused]:
    """Read a response as an error. If its body is cut short or late, the status is enough."""
    if 300 <= head.status < 400 and (location := head.headers.get("location")):
        return redirection(head.status, location)
    body = yield from read_body(MAX_REFUSAL, deadline)
    error = refusal(head.status, b"" if isinstance(body, Failed) else body)
    if (allow := head.headers.get("allow")) is not None:
        error.members.setdefault("allow", allow)
    return error


def ask(
    request: Open, retry: Retry, *, repeatable: bool, accepted: Collection[int] = (), total: float | None = None
) -> Flow[Answer]:
    """Send a request and return its answer.

    Raise StreamRefused unless the status is a success or one of `accepted`, and Unreachable if no answer comes. Unless
    `repeatable`, a request that may have arrived is not sent again. `total` bounds everything, in seconds.
    """
    backoff, deadline = Backoff(retry), Deadline(total)
    try:
        while True:
            outcome = yield from _ask_once(request, deadline, repeatable, accepted)
            yield Close()
            if isinstance(outcome, Answer):
                return outcome
            loss, at_least = outcome
            try:
                delay = backoff.fail(at_least=at_least)
            except Spent as spent:
                raise Unreachable(loss, backoff.failures, str(spent)) from None
            yield Sleep(deadline.within(delay))
    except Overdue as overdue:
        raise Unreachable(Loss("overdue", str(overdue)), backoff.failures) from None


def _ask_once(
    request: Open, deadline: Deadline, repeatable: bool, accepted: Collection[int]
) -> Flow[Answer | tuple[Loss, float]]:
    """Return the answer, or the reason why there is none yet and the least seconds to wait."""
    head = yield from send(request, deadline)
    if isinstance(head, Failed):
        if head.error is not None:
            raise head.error
        if head.final or (head.sent and not repeatable):
            raise Unreachable(head.loss, 1, "" if head.final else UNKNOWN)
        return head.loss, 0.0
    if 200 <= head.status < 300 or head.status in accepted:
        body = yield from read_body(MAX_ANSWER, deadline.at_most(request.within))
        if not isinstance(body, Failed):
            return Answer(head.status, body)
        if not repeatable:
            raise Unreachable(body.loss, 1, "the request has arrived")
        return body.loss, 0.0
    error = yield from read_refusal(head, deadline.at_most(request.within))
    retry_after = read_retry_after(head.headers.get("retry-after"))
    if head.status in UNAVAILABLE and (repeatable or (head.status in NOT_DEALT_WITH and retry_after is not None)):
        return Loss("unavailable", str(error), head.through), retry_after or 0.0
    raise error

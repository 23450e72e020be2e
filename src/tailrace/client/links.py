"""Addresses: parameters, origins, and the `Link` header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import httpx

# RFC 8288: a URI in angle brackets, then parameters, of which `rel` has one or more words.
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:"[^"]*"|[^\s",;]+))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))', re.IGNORECASE)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def check_url(url: str, *, is_whole: bool = True) -> None:
    """ValueError for what no client can ask for; unless `is_whole`, the rest of the address is known elsewhere."""
    try:
        urlsplit(url)
        parts = httpx.URL(url)
        expected = _missing_in(parts, is_whole)
        # So it is written where it is looked up.
        parts.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"expected a URL, but got {url[:80]!r}: {error}") from None
    if expected is not None:
        raise ValueError(f"expected a URL with {expected}, but got {url[:80]!r}")


def _missing_in(parts: httpx.URL, is_whole: bool) -> str | None:
    if not is_whole and not parts.scheme:
        return None
    if parts.scheme not in _PORTS:
        return "one of http, https, ws or wss"
    if not parts.host:
        return "a host"
    return None if parts.port is None or 0 < parts.port < 1 << 16 else "a port from 1 to 65535"


def stop_link(header: str) -> str | None:
    """The target with the relation `stop` in the value of a Link header."""
    for link in _LINK.finditer(header):
        rel = _REL.search(link[2])
        if rel is not None and "stop" in (rel[1] or rel[2] or "").lower().split():
            return link[1]
    return None


def named_address(reference: str | None, *, by: str, asked: str) -> str | None:
    """The address that an answer from the URL `by` names, if it is one that may have what was sent to `asked`."""
    if reference is None:
        return None
    try:
        address = urljoin(by, reference)
        check_url(address)
    except ValueError:  # a stream that can be read is not lost for a header that cannot
        return None
    origin = _origin(address)
    return address if origin == _origin(asked) or (origin == _origin(by) and _is_by_tls(by, asked)) else None


_Origin = tuple[str, str | None, int | None]


def _is_by_tls(by: str, asked: str) -> bool:
    """Whether a redirection has led to the same server by TLS. httpx, too, keeps credentials there, and else not."""
    host = urlsplit(asked).hostname
    return _origin(asked) == ("http", host, 80) and _origin(by) == ("https", host, 443)


def _origin(url: str) -> _Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def with_parameter(url: str, name: str, value: str) -> str:
    """The URL with the parameter in place of any others of that name."""
    parts = urlsplit(url)
    query = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] != name]
    return urlunsplit(parts._replace(query="&".join([*query, urlencode({name: value})])))


def with_parameters(url: str, params: Mapping[str, Any] | None) -> str:
    """The URL with parameters added to those that it has; lists stand for several values, None for none."""
    said = {name: _spelled(value) for name, value in (params or {}).items() if value is not None}
    if not said:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode(said, doseq=True)]))))


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_spelled(each) for each in value if each is not None] if isinstance(value, list | tuple) else value

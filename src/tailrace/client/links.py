"""Addresses: parameters, origins, and the `Link` header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

# RFC 8288: a URI in angle brackets, then parameters, of which `rel` has one or more words.
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:"[^"]*"|[^\s",;]+))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))', re.IGNORECASE)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def check_url(url: str, *, is_whole: bool = True) -> None:
    """ValueError for what no client can ask for; unless `is_whole`, the rest of the address is known elsewhere."""
    scheme = urlsplit(url).scheme
    if scheme not in _PORTS and (scheme or is_whole):
        raise ValueError(f"expected a URL with one of http, https, ws or wss, but got {url[:80]!r}")


def stop_link(header: str) -> str | None:
    """The target with the relation `stop` in the value of a Link header."""
    for link in _LINK.finditer(header):
        rel = _REL.search(link[2])
        if rel is not None and "stop" in (rel[1] or rel[2] or "").lower().split():
            return link[1]
    return None


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def with_parameter(url: str, name: str, value: str) -> str:
    """The URL with the parameter in place of any others of that name."""
    parts = urlsplit(url)
    query = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] != name]
    return urlunsplit(parts._replace(query="&".join([*query, urlencode({name: value})])))


def with_parameters(url: str, params: Mapping[str, Any] | None) -> str:
    """The URL with parameters added to those that it has; lists stand for several values."""
    if not params:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode(params, doseq=True)]))))

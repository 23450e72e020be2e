"""What the query of a database's URL may say."""

from __future__ import annotations

from sqlalchemy.engine import URL

from .errors import StoreError

TIMEOUT = 5.0
"""What `timeout` is where a URL does not say, in seconds."""


def check_options(url: URL, known: set[str], place: str) -> None:
    if unknown := url.query.keys() - known:
        expected, got = ", ".join(sorted(known)), ", ".join(sorted(unknown))
        raise StoreError(f"{place}: expected only the options {expected}, but got {got}")


def timeout(url: URL, place: str) -> float:
    """How many seconds the URL's `timeout` says."""
    said = url.query.get("timeout", str(TIMEOUT))
    try:
        return float(str(said))
    except ValueError:
        raise StoreError(f"{place}: expected seconds as timeout, but got {said!r}") from None

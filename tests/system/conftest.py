from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.system.servers import UVICORN, Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """The tests' application on plain uvicorn; modules that try other servers have a fixture of their own."""
    with running(UVICORN) as instance:
        yield instance


@pytest.fixture
def name() -> str:
    """Of the generators of one test."""
    return uuid.uuid4().hex

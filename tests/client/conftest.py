from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tailrace.client.http import HTTPClient
from tests.client.drivers import DRIVERS, JAVASCRIPT, Driver
from tests.js.driving import Node, node
from tests.silence import silent_loop

__all__ = ["driver", "shared", "silent_loop"]


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each test that asks for it is run with asyncio and without, and by `@everywhere` in Node, too."""
    if request.param == JAVASCRIPT:
        running: Node = request.getfixturevalue("running_node")
        return running.driver
    chosen: Driver = request.param
    return chosen


@pytest.fixture(scope="session")
def running_node() -> Iterator[Node]:
    with node() as running:
        yield running


@pytest.fixture
async def shared(driver: Driver) -> AsyncIterator[HTTPClient]:
    """One client for many readings: making one takes longer than they do."""
    if driver.name == "sync":
        with httpx.Client() as client:
            yield client
    else:
        async with httpx.AsyncClient() as other:
            yield other

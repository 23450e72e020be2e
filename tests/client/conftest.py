from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tailrace.client.http import HTTPClient
from tests.client.drivers import DRIVERS, Driver
from tests.silence import silent_loop

__all__ = ["driver", "shared", "silent_loop"]


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each test that asks for it is run with asyncio and without."""
    chosen: Driver = request.param
    return chosen


@pytest.fixture
async def shared(driver: Driver) -> AsyncIterator[HTTPClient]:
    """One client for many readings: making one takes longer than they do."""
    if driver.name == "sync":
        with httpx.Client() as client:
            yield client
    else:
        async with httpx.AsyncClient() as other:
            yield other

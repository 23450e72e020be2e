from __future__ import annotations

import asyncio

import pytest

from tailrace.cli.terminal.app import Connection
from tests.serving import free_port


async def test_a_connection_that_nobody_needs_is_none() -> None:
    async with Connection("http://there", None):
        pass


async def test_who_gives_up_waiting_takes_it_from_nobody_else() -> None:
    async with Connection(f"http://127.0.0.1:{free_port()}", None) as connection:
        impatient = asyncio.create_task(connection.server())
        patient = asyncio.create_task(connection.server())
        await asyncio.sleep(0)  # so that both wait
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert await patient is await connection.server()

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tailrace.cli.main import main
from tailrace.testing import Relay, relayed
from tests.cli.served import PATIENCE
from tests.cli.tails import Ended, Run, make_app
from tests.serving import serving


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(make_app()) as url:
        yield url


@pytest.fixture
async def relay(url: str) -> AsyncIterator[Relay]:
    async with relayed(url) as relay:
        yield relay


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `tailrace tail` in a thread, which is faster than a process."""

    def run_now(arguments: tuple[str, ...]) -> int:
        try:
            return main(["tail", *arguments])
        except SystemExit as end:  # which is how the parser ends
            return int(str(end.code))

    async def run(*arguments: str) -> Ended:
        async with asyncio.timeout(PATIENCE):
            status = await asyncio.to_thread(run_now, arguments)
        return Ended(status, *capfd.readouterr())

    return run

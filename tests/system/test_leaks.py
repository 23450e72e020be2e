"""What is left of connections that are gone: nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
import uvloop

from tests.serving import ROOT
from tests.system.servers import PATIENCE, Kind, Running, running
from tests.system.visits import SHARES, visit

# A visitor's connection may be idle for long between two requests.
OPTIONS = "--no-access-log --log-level warning --backlog 4096 --timeout-keep-alive 60"
SERVER = Kind("uvicorn", f"uvicorn --port {{port}} {OPTIONS} {{app}}")

VISITS = 12_000

OBJECTS_TOLERANCE = 1_000
"""Objects that the server may have more: one for every eighth visit."""

RSS_TOLERANCE = 3 << 20
"""Bytes that the server may have grown by: about 400 for each visit. Smaller ones are counted as objects."""


@dataclass(frozen=True)
class Sample:
    """What a server holds when nobody is there."""

    tasks: int
    descriptors: int
    objects: int
    rss: int


async def sample(server: Running, client: httpx.AsyncClient) -> Sample:
    """Once everybody has left; for the kernel's and the server's part of it there is no event to wait for."""
    process = psutil.Process(server.process.pid)
    async with asyncio.timeout(PATIENCE):
        while True:
            statistics: dict[str, Any] = (await client.get("/statistics")).json()
            sockets = [each for each in process.net_connections("tcp") if each.status != psutil.CONN_LISTEN]
            # One connection is the one that asks.
            if statistics["readers"] == statistics["producers"] == 0 and len(sockets) == 1:
                assert statistics["stuck"] == 0
                objects = (await client.get("/objects")).json()
                return Sample(statistics["tasks"], process.num_fds(), objects, process.memory_info().rss)
            await asyncio.sleep(0.1)


async def compare_before_and_after(server: Running) -> None:
    async with server.client() as client:
        # What is made once, and what allocators keep, is there after the first third.
        kinds = await visit(server.port, VISITS // 3)
        before = await sample(server, client)
        kinds += await visit(server.port, VISITS - VISITS // 3)
        after = await sample(server, client)
    assert kinds.total() == VISITS
    assert set(kinds) == set(SHARES)
    assert after.tasks == before.tasks
    assert after.descriptors == before.descriptors
    assert after.objects - before.objects < OBJECTS_TOLERANCE
    assert after.rss - before.rss < RSS_TOLERANCE


def test_twelve_thousand_short_connections_leave_nothing_behind() -> None:
    # Its lines are counted in other tests; here that would take twice the time.
    with running(SERVER, GRACE="0.05", KEEP_COUNT="100", COVERAGE_PROCESS_CONFIG="") as server:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(compare_before_and_after(server))
        assert server.output() == ""


ISOLATED = ["unshare", "--map-root-user", "--net"]


def can_be_isolated() -> bool:
    """Whether the test may make network namespaces, and links between them."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None or shutil.which("ip") is None:
        return False
    tried = [*ISOLATED, "ip", "link", "add", "here", "type", "veth", "peer", "name", "there"]
    return subprocess.run(tried, capture_output=True, timeout=PATIENCE).returncode == 0


@pytest.mark.skipif(not can_be_isolated(), reason="needs to make network namespaces: unshare --map-root-user --net")
def test_a_peer_that_vanishes_without_a_word_is_given_up() -> None:
    """One that is flooded by the send timeout, one that is idle by the kernel, thanks to the pings."""
    done = subprocess.run(
        [*ISOLATED, sys.executable, "-m", "tests.system.vanishing"],
        capture_output=True, cwd=ROOT, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: (life["started"], life["closed"]) for name, life in found["lives"].items()} == {
        "flooded": (1, 1),
        "idle": (1, 1),
    }
    assert "Traceback" not in found["said"]

"""What the fault tests share: servers of their own, and the clock of each fault.

If the environment has FAULTS_FILE, each measured fault is written there, as a line of JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.log.redis.redis_server import RedisServer, redis_server

from .clock import Clock


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server without persistence, for one test."""
    with redis_server() as running:
        yield running


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """The clock of a test's fault, which its mark `fault` describes."""
    clock = Clock()
    yield clock
    mark = request.node.get_closest_marker("fault")
    if (file := os.environ.get("FAULTS_FILE")) and mark is not None and clock.samples:
        measured = {"test": request.node.originalname, "fault": mark.args[0], **mark.kwargs, "samples": clock.samples}
        with Path(file).open("a") as lines:
            lines.write(json.dumps(measured) + "\n")

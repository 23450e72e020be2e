"""What holds for the tests of the rover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.log.redis.redis_server import RedisServer, redis_server
from tests.silence import silent_loop

__all__ = ["silent_loop"]


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image, because painting the panorama takes seconds."""
    path = tmp_path_factory.mktemp("images") / "photo.jpg"
    Image.effect_noise((640, 480), 80).save(path, "JPEG", progressive=True, quality=95)
    return path


@pytest.fixture(scope="module")
def _shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(_shared_redis: RedisServer) -> RedisServer:
    """An empty server."""
    _shared_redis.kill_clients()
    _shared_redis.ask("FLUSHALL")
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may stop. It keeps its data."""
    with redis_server("--appendonly", "yes") as server:
        yield server

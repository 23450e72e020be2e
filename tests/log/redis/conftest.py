"""The Redis servers that tests share, and those that a test has for itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(_shared_redis: RedisServer) -> RedisServer:
    """An empty server that all tests of this process share. Kill clients and flush scripts, but change no settings."""
    _shared_redis.kill_clients()
    _shared_redis.ask("FLUSHALL")
    _shared_redis.ask("SCRIPT", "FLUSH")
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may stop it, freeze it and set what it likes."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def contract_redis() -> Iterator[RedisServer]:
    """A server of one module, whose settings its tests change."""
    with redis_server() as server:
        yield server

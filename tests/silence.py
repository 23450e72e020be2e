"""Fails a test for what its event loop would only log."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def silent_loop(frozen_heap: None, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if a task's exception was never retrieved, or a task destroyed while pending. Use it by `usefixtures`."""
    yield
    gc.collect()
    complaints = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not complaints, "\n".join(record.getMessage() for record in complaints)

"""Fails a test for what its event loop would only log."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def silent_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if a task's exception was never retrieved, or a task destroyed while pending. Use it by `usefixtures`."""
    gc.freeze()  # so that collecting takes only what the test leaves, which is a hundred times faster
    yield
    gc.collect()
    gc.unfreeze()
    complaints = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not complaints, "\n".join(record.getMessage() for record in complaints)

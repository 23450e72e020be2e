"""What an event loop would only log fails the test that caused it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def silent_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No exception of a task is left unretrieved, and no task pending; import it and name it in `usefixtures`."""
    yield
    gc.collect()
    complaints = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not complaints, "\n".join(record.getMessage() for record in complaints)

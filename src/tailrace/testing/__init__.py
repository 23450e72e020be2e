"""Tools for tests: the contract suite of logs, and a recorder of what an ASGI application receives and sends.

pytest explains failed asserts of the suite if a conftest says `pytest.register_assert_rewrite("tailrace.testing")`.
"""

from .base import raised
from .contract import LogContract
from .recorder import Application, Exchange, Message, Receive, Recorded, Recorder, Send

__all__ = [
    "Application",
    "Exchange",
    "LogContract",
    "Message",
    "Receive",
    "Recorded",
    "Recorder",
    "Send",
    "raised",
]

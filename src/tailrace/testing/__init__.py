"""Tools for tests: a contract suite for stores, a recorder for ASGI applications, and a relay with faults.

pytest explains failed asserts of the suite if a conftest calls `pytest.register_assert_rewrite("tailrace.testing")`.
"""

from .base import raised
from .contract import LogContract
from .recorder import Application, Exchange, Message, Receive, Recorded, Recorder, Send
from .relay import Fault, Relay, relayed

__all__ = [
    "Application",
    "Exchange",
    "Fault",
    "LogContract",
    "Message",
    "Receive",
    "Recorded",
    "Recorder",
    "Relay",
    "Send",
    "raised",
    "relayed",
]

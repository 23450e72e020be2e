"""Tools for tests: the contract suite of logs, a recorder of what an ASGI application receives and sends, and a faulty
relay between a client and its server.

pytest explains failed asserts of the suite if a conftest says `pytest.register_assert_rewrite("tailrace.testing")`.
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

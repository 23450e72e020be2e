from __future__ import annotations

import errno
import socket

import pytest

from tailrace.cli.terminal.start import KNOCK_SECONDS, why


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('1', 1)"), "Connection refused"),
        (OSError("Multiple exceptions: one, another"), "no connection"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "there is no such host"),
        (UnicodeError("label empty or too long"), "there is no such host"),
        (TimeoutError(), f"no response in {KNOCK_SECONDS:g} s"),
        (TimeoutError(errno.ETIMEDOUT, "Connect call failed"), f"no response in {KNOCK_SECONDS:g} s"),
    ],
)
def test_why_there_is_no_server(error: Exception, line: str) -> None:
    assert why(error) == line

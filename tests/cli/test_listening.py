from __future__ import annotations

import socket

import pytest

from tailrace.cli.command import CommandError
from tailrace.cli.listening import is_loopback, listen, url_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}"),
        ("localhost", "http://localhost:{port}"),
        ("0.0.0.0", "http://127.0.0.1:{port}"),
        ("::1", "http://[::1]:{port}"),
        ("::", "http://[::1]:{port}"),
    ],
)
def test_a_free_port_accepts_and_has_an_address(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(host, listener) == url.format(port=port)
        with socket.create_connection(("127.0.0.1" if listener.family == socket.AF_INET else "::1", port), 5):
            pass


def test_of_a_name_with_both_the_older_kind_of_address_is_meant() -> None:
    with listen("localhost", 0) as listener:
        assert listener.family == socket.AF_INET


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70 + ".example", "a..b"])
def test_a_host_that_is_none_of_this_machine_is_said(host: str) -> None:
    with pytest.raises(
        CommandError, match=rf"^cannot listen on '{host}' \(.+\): choose an address as with --host 127.0.0.1$"
    ):
        listen(host, 0)


def test_the_last_port_is_taken() -> None:
    with listen("127.0.0.1", 65535), pytest.raises(CommandError, match=r"another with --port 65534$"):
        listen("127.0.0.1", 65535)

"""The address that a server listens on."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any

from .command import CommandError

BACKLOG = 2048

REFUSALS: dict[int | None, str] = {
    errno.EADDRINUSE: "port {port} on {host} is taken: choose another with --port {other}",
    errno.EACCES: "port {port} on {host} is for the administrator: choose one above 1023, as with --port 8000",
}
"""Why there can be no socket, by the number of the error."""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; port 0 is any free one. CommandError where there can be none.

    A name stands for its first IPv4 address if it has one, for its first IPv6 address otherwise.
    """
    family, address = _resolve(host, port)
    # asyncio sends small pieces at once only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Elsewhere a server can be started again at once; on Windows this would share the port with others.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from None
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """Where a browser on this machine finds what listens."""
    address, port = listener.getsockname()[:2]
    bound = ipaddress.ip_address(address)
    if bound.is_unspecified:
        host = "127.0.0.1" if bound.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # a name may be too long or empty in parts for the encoding of names
        raise _refusal(host, port, error) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _refusal(host: str, port: int, error: OSError | UnicodeError) -> CommandError:
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, "not the name of a host")
    sentence = REFUSALS.get(number, "cannot listen on {host!r} ({reason}): choose an address as with --host 127.0.0.1")
    other = port + 1 if port < 65535 else port - 1
    return CommandError(sentence.format(host=host, port=port, reason=reason, other=other))

"""The proxies and certificates that the environment names. Nothing here needs httpx or websockets.

A loopback host is never behind a proxy. The values of variables are checked before use, so that a mistake gives one
clear error instead of a library's traceback.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .errors import UnusableEnvironment

_SYSTEM = "the system's proxy setting"
_OFFERS = {
    # As in httpx: https://www.python-httpx.org/environment_variables/.
    "http": ("http", "all"),
    "https": ("https", "all"),
    # As in websockets. RFC 6455, section 4.1, prefers SOCKS, then the proxy for HTTPS, which tunnels.
    "ws": ("ws", "socks", "https", "http", "all"),
    "wss": ("wss", "socks", "https", "all"),
}
_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the environment variable that names it."""

    url: str
    variable: str

    @property
    def shown(self) -> str:
        """The address without its password, even if that has a character that should be percent-encoded."""
        return re.sub(r"(?<=://)([^:@]*):.*@", r"\1:…@", self.url)

    def failed(self, reason: str, host: str) -> UnusableEnvironment:
        """Return the error for a proxy that fails for a host."""
        return self._unusable(reason, f"correct it, or add {host} to NO_PROXY")

    def check(self, socks_package: str, install: str) -> None:
        """Raise UnusableEnvironment if this cannot be a proxy, or if it needs a package for SOCKS that is missing."""
        try:
            parts = urlsplit(self.url)
            is_address = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or parts.scheme not in _SCHEMES:
            expected = f"expected an address with one of {', '.join(_SCHEMES)}"
            raise self._unusable(f"that is not the address of a proxy ({expected})", "correct or unset it")
        if parts.scheme.startswith("socks") and find_spec(socks_package) is None:
            reason = f"a SOCKS proxy needs the package {socks_package}, which is not installed"
            raise self._unusable(reason, f"{install}, or unset it")

    def _unusable(self, reason: str, remedy: str) -> UnusableEnvironment:
        return UnusableEnvironment(self.variable, self.shown, reason, remedy)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for a URL, or None for a direct connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else host
    if is_loopback(host) or proxy_bypass(named if parts.port is None else f"{named}:{parts.port}"):
        return None
    proxies = getproxies()
    for offer in _OFFERS.get(parts.scheme, ()):
        if address := proxies.get(offer):
            # A value without a scheme is a host and a port. A system's SOCKS setting is not an HTTP proxy.
            scheme = "socks5h" if offer == "socks" else "http"
            bare = address.removeprefix("http://") if offer == "socks" else address
            return Proxy(bare if "://" in bare else f"{scheme}://{bare}", _variable(f"{offer}_proxy", address))
    return None


def _variable(name: str, value: str) -> str:
    """Return the spelling of a variable's name that the environment has a value for."""
    return next((each for each in (name, name.upper()) if os.environ.get(each) == value), _SYSTEM)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine: 127.0.0.0/8, ::1, or localhost (RFC 6761, section 6.3)."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def tls_context(default: str | None) -> ssl.SSLContext:
    """Return a context that trusts the environment's certificates, else those in the file `default`, else the system's.

    Raise UnusableEnvironment if the value of a variable cannot be used.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder:
            # OpenSSL reads a folder only when it needs a certificate, and does not report a missing one.
            os.listdir(folder)
            return ssl.create_default_context(capath=folder)
        return ssl.create_default_context(cafile=default)
    except OSError as error:  # ssl.SSLError is a subclass
        raise _unusable_file(error, file, folder) from None


def _unusable_file(error: OSError, file: str | None, folder: str | None) -> Exception:
    log = os.environ.get("SSLKEYLOGFILE")
    for variable, value, remedy in (
        ("SSLKEYLOGFILE", log if error.filename == log else None, "name a file that can be written"),
        ("SSL_CERT_FILE", file, "name a file of certificates in PEM format"),
        ("SSL_CERT_DIR", None if file else folder, "name a folder of certificates"),
    ):
        if value:
            is_open = isinstance(error, ssl.SSLError)
            reason = "it has no certificates" if is_open else f"it cannot be opened ({error.strerror or error})"
            return UnusableEnvironment(variable, value, reason, f"{remedy}, or unset it")
    return error

"""`tailrace serve`: the options of the chat server, and the address that it listens on."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Any

from .chat import KEY_VARIABLE, URL_VARIABLE
from .command import Command, CommandError, UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """An option that sets an environment variable, which the application and the reloader's processes read.

    `default` is for the help text only.
    """

    flag: str
    metavar: str
    variable: str
    help: str
    default: str

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


HOST = Option("--host", "ADDRESS", "TAILRACE_HOST", "the address to listen on", "127.0.0.1")
PORT = Option("--port", "PORT", "TAILRACE_PORT", "the port; 0 picks a free one", "8000")
HOSTS = "TAILRACE_HOSTS"
COMMAND_VARIABLES = (HOST.variable, PORT.variable, URL_VARIABLE, KEY_VARIABLE)
"""The variables that the commands read but that are not settings of the server."""

OPTIONS = (
    HOST,
    PORT,
    Option(
        "--model",
        "MODEL",
        "TAILRACE_MODEL",
        "the model that answers: demo, or provider:name",
        "the one that GENAI_MODEL_ID names, else demo",
    ),
    Option(
        "--database",
        "FILE|URL",
        "TAILRACE_DATABASE",
        "where to keep sessions: a file, sqlite:///… or postgresql://…",
        "a file in your data directory",
    ),
    Option(
        "--streams",
        "URL",
        "TAILRACE_STREAMS",
        "where to keep replies in progress: memory://, or redis://… for several processes",
        "memory://",
    ),
    Option("--log-format", "FORMAT", "TAILRACE_LOG_FORMAT", "rich, json, or auto: rich on a terminal", "auto"),
    Option(
        "--log-chunks",
        "WHICH",
        "TAILRACE_LOG_CHUNKS",
        "which chunks of a reply to log: all, or some: the first, every tenth and the last",
        "some",
    ),
)

EPILOG = """\
The variable in brackets sets an option too; the option takes precedence. Further settings are variables only:
TAILRACE_API_KEYS, TAILRACE_ADMIN_KEYS, TAILRACE_CORS_ORIGINS and TAILRACE_HOSTS (lists, separated by commas),
TAILRACE_SESSIONS_ON_DEMAND, TAILRACE_DEMO_WORDS, TAILRACE_DEMO_PACE, TAILRACE_MAX_MESSAGE, TAILRACE_MAX_REPLY,
TAILRACE_MAX_BODY, TAILRACE_MAX_SESSIONS, TAILRACE_MAX_TURNS, TAILRACE_MAX_STREAMS, TAILRACE_CONTEXT_MESSAGES,
TAILRACE_CONTEXT_CHARACTERS and TAILRACE_MODEL_TIMEOUT."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    for option in OPTIONS:
        parser.add_argument(
            option.flag, metavar=option.metavar, help=f"{option.help} [{option.variable}; default: {option.default}]"
        )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="serve other machines without asking for a key [default: no]",
    )
    parser.add_argument("--reload", action="store_true", help="restart when tailrace's own code changes [default: no]")
    parser.add_argument(
        "--workers", type=int, metavar="N", default=1, help="processes; several need --streams [default: 1]"
    )


def run(options: Namespace) -> int:
    """Serve until a signal arrives, and return the exit status."""
    workers: int = options.workers
    if workers < 1 or (workers > 1 and options.reload):
        raise UsageError(f"expected --workers {1 if options.reload else 'to be at least 1'}, but got {workers}")
    given = {option: value for option in OPTIONS if (value := getattr(options, option.name)) is not None}
    for option, value in given.items():
        if not value:
            raise UsageError(f"expected {option.flag} {option.metavar}, but got '' as {option.metavar}")
    os.environ.update({option.variable: value for option, value in given.items()})
    names = {option.variable: option.flag for option in given}
    host = os.environ.get(HOST.variable) or HOST.default
    port = port_of(os.environ.get(PORT.variable) or PORT.default, names.get(PORT.variable, PORT.variable))
    try:
        from .server import check, read_settings, serve, serve_on_workers, serve_reloading, warn_of_unknown
    except ModuleNotFoundError as error:
        raise UsageError(f"needs the extra chat, but there is no {error.name}: pip install 'tailrace[chat]'") from None
    settings = read_settings(names)
    if not (settings.api_keys or settings.admin_keys or options.allow_anonymous or is_loopback(host)):
        raise UsageError(
            f"anyone who can reach {host} could chat: set TAILRACE_API_KEYS to the keys that you give out, "
            "or say --allow-anonymous"
        )
    if workers > 1 and not settings.shares_streams:
        raise UsageError(
            f"expected --streams redis://… with --workers {workers}, but got {settings.streams or 'memory://'}: "
            "a worker could not resume, stop or list what another one answers"
        )
    # The application, the reloader's processes and workers read this from the environment.
    os.environ[HOSTS] = ",".join(_hosts(settings.hosts, host, options.allow_anonymous))
    warn_of_unknown(os.environ, COMMAND_VARIABLES, settings.log_format)
    with listen(host, port) as listener:
        facts = check(settings, os.environ, url_of(host, listener))
        if workers > 1:
            return serve_on_workers(listener, facts, workers)
        return (serve_reloading if options.reload else serve)(listener, facts)


SERVE = Command("serve", "Run the chat server.", configure, run)


def _hosts(given: tuple[str, ...], host: str, allow_anonymous: bool) -> tuple[str, ...]:
    """Return the names that browsers may use for the server: its address, or any name if it is open to all machines."""
    if not given and allow_anonymous and not is_loopback(host):
        return ("*",)
    return (*given, host)


def port_of(value: str, name: str) -> int:
    """Return a port. For anything else, raise UsageError that names the option or variable `name`."""
    if not (value.isascii() and value.isdigit() and int(value) < 1 << 16):
        raise UsageError(f"expected {name} to be a port from 0 to 65535, but got {value!r}")
    return int(value)


# The address

BACKLOG = 2048

REFUSALS: dict[int | None, str] = {
    errno.EADDRINUSE: "port {port} on {host} is taken: choose another with --port {other}",
    errno.EACCES: "port {port} on {host} needs administrator rights: choose one above 1023, such as --port 8000",
}
"""The message for an address that cannot be used, by the number of the error."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that accepts connections. Raise CommandError if that is impossible.

    A name means its first IPv4 address if it has one, otherwise its first IPv6 address.
    """
    family, address = _resolve(host, port)
    # Name TCP as the protocol, because asyncio sets TCP_NODELAY only on such sockets.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On POSIX, this lets a server restart immediately. On Windows, it would share the port with other programs.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from None
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """Return the URL of a listening socket for a browser on this machine."""
    address, port = listener.getsockname()[:2]
    bound = ipaddress.ip_address(address)
    if bound.is_unspecified:
        host = "127.0.0.1" if bound.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the IDNA encoding refuses empty and long labels
        raise _refusal(host, port, error) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _refusal(host: str, port: int, error: OSError | UnicodeError) -> CommandError:
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, "not a host name")
    sentence = REFUSALS.get(number, "cannot listen on {host!r} ({reason}): choose an address, such as --host 127.0.0.1")
    other = port + 1 if port < 65535 else port - 1
    return CommandError(sentence.format(host=host, port=port, reason=reason, other=other))

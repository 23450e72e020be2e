"""`tailrace serve`: the chat server."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass

from .chat import KEY_VARIABLE, URL_VARIABLE
from .command import Command, UsageError
from .listening import is_loopback, listen, url_of


@dataclass(frozen=True, slots=True)
class Option:
    """An option that stands for a variable of the environment.

    The variable is how the application and the reloader's processes are told. `default` is for the help.
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
PORT = Option("--port", "PORT", "TAILRACE_PORT", "the port; 0 is any free one", "8000")
HOSTS = "TAILRACE_HOSTS"
COMMANDS_OWN = (HOST.variable, PORT.variable, URL_VARIABLE, KEY_VARIABLE)
"""Variables of the commands, that are no settings of the server."""

OPTIONS = (
    HOST,
    PORT,
    Option(
        "--model",
        "MODEL",
        "TAILRACE_MODEL",
        "who answers: demo, or provider:name",
        "what GENAI_MODEL_ID names, else demo",
    ),
    Option(
        "--database",
        "FILE|URL",
        "TAILRACE_DATABASE",
        "where sessions are kept: a file, sqlite:///… or postgresql://…",
        "a file in your data directory",
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
An option beats its variable, which stands in brackets. Further settings are variables only: TAILRACE_API_KEYS,
TAILRACE_ADMIN_KEYS, TAILRACE_CORS_ORIGINS and TAILRACE_HOSTS (lists, separated by commas),
TAILRACE_SESSIONS_ON_DEMAND, TAILRACE_DEMO_WORDS, TAILRACE_DEMO_PACE,
TAILRACE_MAX_MESSAGE, TAILRACE_MAX_REPLY, TAILRACE_MAX_BODY, TAILRACE_MAX_SESSIONS, TAILRACE_MAX_TURNS,
TAILRACE_MAX_STREAMS, TAILRACE_CONTEXT_MESSAGES, TAILRACE_CONTEXT_CHARACTERS and TAILRACE_MODEL_TIMEOUT."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    for option in OPTIONS:
        parser.add_argument(
            option.flag, metavar=option.metavar, help=f"{option.help} [{option.variable}; default: {option.default}]"
        )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="serve everybody who reaches another address than this machine's own, without keys [default: no]",
    )
    parser.add_argument(
        "--reload", action="store_true", help="restart when a file of tailrace itself changes [default: no]"
    )
    parser.add_argument("--workers", type=int, metavar="N", default=1, help="processes; one, for now [default: 1]")


def run(options: Namespace) -> int:
    """Serve until a signal ends it; 0, or 1 if a second signal cut off what still ran."""
    if options.workers != 1:
        raise UsageError(
            f"expected --workers 1, but got {options.workers}: a stream lives in the memory of one process, "
            "where alone it can be resumed and stopped"
        )
    said = {option: value for option in OPTIONS if (value := getattr(options, option.name)) is not None}
    for option, value in said.items():
        if not value:
            raise UsageError(f"expected {option.flag} {option.metavar}, but got '' as {option.metavar}")
    os.environ.update({option.variable: value for option, value in said.items()})
    names = {option.variable: option.flag for option in said}
    host = os.environ.get(HOST.variable) or HOST.default
    port = _port(os.environ.get(PORT.variable) or PORT.default, names.get(PORT.variable, PORT.variable))
    try:
        from .checks import check, read_settings, warn_of_strangers
        from .server import serve, serve_reloading
    except ModuleNotFoundError as error:
        raise UsageError(f"needs the extra chat, but there is no {error.name}: pip install 'tailrace[chat]'") from None
    settings = read_settings(names)
    if not (settings.api_keys or options.allow_anonymous or is_loopback(host)):
        raise UsageError(
            f"everybody who reaches {host} could chat: set TAILRACE_API_KEYS to the keys of those who may, "
            "or say --allow-anonymous"
        )
    # The application, and the reloader's processes, are told by the environment.
    os.environ[HOSTS] = ",".join(_hosts(settings.hosts, host, options.allow_anonymous))
    warn_of_strangers(os.environ, COMMANDS_OWN, settings.log_format)
    with listen(host, port) as listener:
        facts = check(settings, os.environ, url_of(host, listener))
        return (serve_reloading if options.reload else serve)(listener, facts)


SERVE = Command("serve", "Run the chat server.", configure, run)


def _hosts(told: tuple[str, ...], host: str, allow_anonymous: bool) -> tuple[str, ...]:
    """The names that the server goes by: also that of its address, and any in front of one that is open to all."""
    if not told and allow_anonymous and not is_loopback(host):
        return ("*",)
    return (*told, host)


def _port(value: str, name: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < 1 << 16):
        raise UsageError(f"expected {name} to be a port from 0 to 65535, but got {value!r}")
    return int(value)

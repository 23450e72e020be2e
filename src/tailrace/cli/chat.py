"""`tailrace chat`: talk with a chat server."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from urllib.parse import urlsplit

from .command import Command, CommandError, UsageError
from .notices import say
from .terminal.wish import Wish

URL_VARIABLE = "TAILRACE_URL"
KEY_VARIABLE = "TAILRACE_API_KEY"
EXTRA = ("httpx", "prompt_toolkit", "rich")
URL = "http://127.0.0.1:8000"

EPILOG = """\
On a terminal it is a chat; /help lists what it can do there. With --message, or where its input or output is no
terminal, it answers once: the text of the reply, and nothing else, goes to the output. The exit status is then 0 if
the reply is complete, 1 if it failed or was stopped, 2 if the command was not understood, 130 after Ctrl-C."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("url", metavar="URL", nargs="?", help=f"where the server is [{URL_VARIABLE}; default: {URL}]")
    parser.add_argument("--message", metavar="TEXT", help="send this, print the reply, and end [default: a chat]")
    parser.add_argument("--session", metavar="ID", help="go on with a session [default: a new one]")
    parser.add_argument("--key", metavar="KEY", help=f"one of the server's API keys [{KEY_VARIABLE}; default: none]")
    parser.add_argument(
        "--json", action="store_true", help="print the objects of the reply's stream, one a line [default: its text]"
    )


def run(options: Namespace) -> int:
    """Talk until the user leaves, or once; the exit status."""
    if sys.stdout is None:
        raise CommandError("the standard output is closed")
    wish = read_wish(options)
    # Found and not imported, because not all of it is needed at once.
    for name in EXTRA:
        if find_spec(name) is None:
            raise UsageError(f"needs the extra cli, but there is no {name}: pip install 'tailrace[cli]'")
    from .terminal.start import start

    return start(wish)


CHAT = Command("chat", "Talk with a chat server.", configure, run)


def read_wish(options: Namespace) -> Wish:
    url = options.url or os.environ.get(URL_VARIABLE) or URL
    key = options.key or os.environ.get(KEY_VARIABLE) or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise UsageError("expected an API key of printable ASCII characters, but got others")
    return Wish(_url(url), key, _session_id(options.session), _message(options), options.json)


def _message(options: Namespace) -> str | None:
    message: str | None = options.message
    if message is None and sys.stdin is not None:
        if not options.json and sys.stdin.isatty() and sys.stdout.isatty():
            return None
        if sys.stdin.isatty():
            say("tailrace chat: write the message, then Ctrl-D on a line of its own")
        message = sys.stdin.buffer.read().decode(sys.stdin.encoding, "replace")
    if message is None or not message.strip():
        raise UsageError("expected a message by --message or from the input, but got none")
    # What of the command line is no text cannot be sent.
    return message.encode(errors="replace").decode()


def _session_id(value: str | None) -> str | None:
    if value is None:
        return None
    # Here and not above, as most chats begin a new session, and the prompt does not wait for what only others need.
    from uuid import UUID

    try:
        return str(UUID(value))
    except ValueError:
        raise UsageError(f"expected --session to be the id of a session, but got {value!r}") from None


def _url(value: str) -> str:
    """The address without the slash at its end; `host:port` is one, too."""
    url = (value if "://" in value else f"http://{value}").rstrip("/")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - which is where it is read
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"expected the URL of a server, as {URL}, but got {value!r}")
    return url

"""`tailrace chat`: chat with a model through a chat server."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from urllib.parse import urlsplit

from .command import Command, CommandError, UsageError, say

URL_VARIABLE = "TAILRACE_URL"
KEY_VARIABLE = "TAILRACE_API_KEY"
EXTRA = ("httpx", "prompt_toolkit", "rich")
URL = "http://127.0.0.1:8000"
SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

EPILOG = """\
On a terminal this is a chat; /help lists its commands. With --message, or if the input or output is not a terminal,
it sends one message and prints only the text of the reply. The exit status is then 0 if the reply is complete, 1 if it
failed or was stopped, 2 if the command line is wrong, 130 after Ctrl-C."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("url", metavar="URL", nargs="?", help=f"the chat server [{URL_VARIABLE}; default: {URL}]")
    parser.add_argument("--message", metavar="TEXT", help="send one message and print the reply [default: a chat]")
    parser.add_argument("--session", metavar="ID", help="continue a session [default: a new one]")
    parser.add_argument("--key", metavar="KEY", help=f"your API key for the server [{KEY_VARIABLE}; default: none]")
    parser.add_argument(
        "--json", action="store_true", help="print the objects of the reply's stream, one a line [default: its text]"
    )


def run(options: Namespace) -> int:
    """Chat until the user leaves, or send one message. Return the exit status."""
    if sys.stdout is None:
        raise CommandError("the standard output is closed")
    url = _url(options.url or os.environ.get(URL_VARIABLE) or URL)
    key = _key(options.key or os.environ.get(KEY_VARIABLE) or None)
    session_id, message = _session_id(options.session), _message(options)
    # Look for the package without importing it, because the prompt does not need all of it.
    for name in EXTRA:
        if find_spec(name) is None:
            raise UsageError(f"needs the extra cli, but there is no {name}: pip install 'tailrace[cli]'")
    from .terminal.start import chat, send

    return chat(url, key, session_id) if message is None else send(url, key, session_id, message, json=options.json)


CHAT = Command("chat", "Talk with a chat server.", configure, run)


def _key(value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isprintable()):
        raise UsageError("expected an API key of printable ASCII characters, but got others")
    return value


def _message(options: Namespace) -> str | None:
    message: str | None = options.message
    if message is None and sys.stdin is not None:
        if not options.json and sys.stdin.isatty() and sys.stdout.isatty():
            return None
        if sys.stdin.isatty():
            say("tailrace chat: write the message, then Ctrl-D on a line of its own")
        message = sys.stdin.buffer.read().decode(sys.stdin.encoding, "replace")
    if message is None or not message.strip():
        raise UsageError("expected a message from --message or from the input, but got none")
    # Bytes that are invalid in the command line's encoding cannot be sent.
    return message.encode(errors="replace").decode()


def _session_id(value: str | None) -> str | None:
    if value is None:
        return None
    if SESSION_ID.fullmatch(value) is None:
        raise UsageError(f"expected --session to be an id of 1-64 letters, digits, - or _, but got {value!r}")
    return value


def _url(value: str) -> str:
    """Return a URL without a trailing slash. `host:port` counts as a URL too."""
    url = (value if "://" in value else f"http://{value}").rstrip("/")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - urlsplit checks the port only here
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"expected the URL of a server, such as {URL}, but got {value!r}")
    return url

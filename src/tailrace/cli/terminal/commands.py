"""The commands of the chat. One list is the source of /help, of the completion and of the commands themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..text import count, short
from .tables import Facts, Listing, aligned, of_health, of_server, of_session

if TYPE_CHECKING:
    from .app import App

LISTED = 500
"""The most sessions to list."""

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "start a new line"),
    ("Tab", "complete commands and sessions"),
    ("Up, Down", "earlier messages and commands; Ctrl-R searches them"),
    ("Ctrl-C", "stop the reply; press again to leave it"),
    ("Ctrl-D", "leave"),
)

ALIASES = {"exit": "quit"}
"""The names of commands in other programs."""


MISSING = {
    "ID": "the beginning of a session's id (/sessions lists them)",
    "TITLE": "a title",
    "TEXT": "a text",
}
"""Descriptions of the arguments that commands require."""


class CommandFailed(Exception):
    """A command is impossible. The text is one line for the user."""


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """`/NAME`. `argument` is one of MISSING if the command needs it. `[ID]` defaults to the current session."""

    name: str
    summary: str
    run: Callable[[App, str], Awaitable[None]]
    argument: str = ""

    @property
    def needs_argument(self) -> bool:
        return self.argument in MISSING

    @property
    def takes_session(self) -> bool:
        return "ID" in self.argument

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


async def run_command(app: App, line: str) -> None:
    """Run a line that begins with a slash. If that is impossible, print why. Raise the errors of the server."""
    try:
        command, argument = _parse(line)
        await command.run(app, argument)
    except CommandFailed as error:
        app.say(str(error), "red")


def find_command(name: str) -> ChatCommand | None:
    """Return the command with a name, in upper or lower case, or None."""
    return COMMANDS.get(ALIASES.get(name.lower(), name.lower()))


def _parse(line: str) -> tuple[ChatCommand, str]:
    name, _, argument = line[1:].partition(" ")
    command, argument = find_command(name), argument.strip()
    if command is None:
        raise CommandFailed(f"unknown command /{name}; {_advice(name)}")
    if argument and not command.argument:
        raise CommandFailed(f"expected /{command.name} alone, but got {argument!r} after it")
    if not argument and command.needs_argument:
        raise CommandFailed(f"expected {MISSING[command.argument]} after /{command.name}")
    return command, argument


def _advice(name: str) -> str:
    # Import it here, because it is rarely needed.
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), [*COMMANDS, *ALIASES], n=1)
    return f"did you mean /{close[0]}?" if close else "/help lists the commands, // sends it as a message"


# The commands


async def _help(app: App, _: str) -> None:
    _show(app, "Commands", [(command.usage, command.summary) for command in COMMANDS.values()])
    _show(app, "Keys", KEYS)


async def _clear(app: App, _: str) -> None:
    app.console.clear()


async def _quit(app: App, _: str) -> None:
    app.leaving = True


async def _stats(app: App, _: str) -> None:
    _show(app, "This client", [*app.state.statistics.rows(), *await _current(app)])


async def _current(app: App) -> Facts:
    """Return the facts about the current session. The server counts its messages, because other clients may use it."""
    session_id = app.state.session_id
    if session_id is None:
        return [("Current session", "none yet")]
    server = await app.server()
    from .server import ERRORS

    try:
        with _noticing(app, session_id):
            messages = str((await server.chat.session(session_id, limit=1)).message_count)
    except ERRORS as error:
        messages = f"unknown: {server.wording.sentence(error)}"
    return [("Current session", session_id), ("Messages in it", messages)]


async def _server(app: App, _: str) -> None:
    server = await app.server()
    _show(app, "Server", of_server(app.url, await server.chat.stats()))


async def _health(app: App, _: str) -> None:
    server = await app.server()
    _show(app, "Health", of_health(await server.chat.health()))


async def _docs(app: App, _: str) -> None:
    await _browse(app, "/docs")


async def _demo(app: App, _: str) -> None:
    await _browse(app, "/demo")


async def _browse(app: App, path: str) -> None:
    # Import it here, because the prompt should not wait for it.
    import webbrowser

    address = app.url + path
    app.say(address)
    # Use a thread, because some browsers block until they are closed.
    if not await asyncio.to_thread(webbrowser.open, address):
        app.say("Could not open a browser here; open the address in yours.", "yellow")


async def _new(app: App, _: str) -> None:
    server = await app.server()
    session = await server.chat.new_session()
    app.state.statistics.sessions_created += 1
    app.state.session_id = session.session_id
    app.say(f"New session {short(session.session_id)} · {await app.model()}")


async def _sessions(app: App, _: str) -> None:
    if not await _list(app):
        app.state.session_id = None  # another client deleted it
        app.say("No sessions yet: write a message to begin one.")


async def _search(app: App, text: str) -> None:
    if not await _list(app, text):
        app.say("No session has this text in its title or its messages.")


async def _list(app: App, search: str | None = None) -> int:
    """List the sessions, or those that have a text. Return how many are listed."""
    server = await app.server()
    listing = Listing(app.console.width - 1, app.state.session_id)
    shown = 0
    async for session in server.chat.sessions(search=search):
        if not shown:
            app.say(listing.heading, "bold")
        if shown == LISTED:
            app.say(f"  … and more; these are the {LISTED} that were used last.", "dim")
            return shown
        for line in listing.lines(session):
            app.say(line)
        shown += 1
    if shown:
        app.say(f"  {count(shown, 'session')}", "dim")
    return shown


async def _rename(app: App, title: str) -> None:
    session_id = await _find(app, "")
    server = await app.server()
    with _noticing(app, session_id):
        renamed = await server.chat.rename(session_id, title)
    app.say(f"Session {short(session_id)} is now called {renamed.title}.")


def _of_session(run: Callable[[App, str], Awaitable[None]]) -> Callable[[App, str], Awaitable[None]]:
    """Make a command whose argument is the beginning of a session's id. The default is the current session."""

    async def run_with_id(app: App, argument: str) -> None:
        session_id = await _find(app, argument)
        await app.server()
        with _noticing(app, session_id):
            await run(app, session_id)

    return run_with_id


@contextmanager
def _noticing(app: App, session_id: str) -> Iterator[None]:
    """Leave the current session if it turns out to be deleted."""
    # Import it here, because it is loaded together with the server.
    from ...client import StreamRefused

    try:
        yield
    except StreamRefused as error:
        if error.code == "session_not_found" and session_id == app.state.session_id:
            app.state.session_id = None
        raise


@_of_session
async def _info(app: App, session_id: str) -> None:
    server = await app.server()
    _show(app, "Session", of_session(await server.chat.session(session_id, limit=1)))


@_of_session
async def _open(app: App, session_id: str) -> None:
    await app.open(session_id)


@_of_session
async def _reset(app: App, session_id: str) -> None:
    server = await app.server()
    await server.chat.clear(session_id)
    app.say(f"Cleared the history of {short(session_id)}.")


@_of_session
async def _delete(app: App, session_id: str) -> None:
    server = await app.server()
    found = await server.chat.session(session_id, limit=1)
    what = f"session {short(session_id)} with {count(found.message_count, 'message')}"
    if not await app.confirm(f"Delete {what}? [y/N] "):
        app.say("Nothing was deleted.")
        return
    await server.chat.delete(session_id)
    if session_id == app.state.session_id:
        app.state.session_id = None
    app.say(f"Deleted {what}.")


COMMANDS: dict[str, ChatCommand] = {
    command.name: command
    for command in (
        ChatCommand("help", "list the commands", _help),
        ChatCommand("new", "begin a new session", _new),
        ChatCommand("info", "this session: id, model, messages, duration, created", _info, "[ID]"),
        ChatCommand("sessions", "list all sessions; the current one is marked", _sessions),
        ChatCommand("search", "list the sessions with a text in their title or messages", _search, "TEXT"),
        ChatCommand("rename", "give this session a title", _rename, "TITLE"),
        ChatCommand("open", "continue another session", _open, "ID"),
        ChatCommand("reset", "clear the history of this session", _reset, "[ID]"),
        ChatCommand("delete", "delete this session; asks first", _delete, "[ID]"),
        ChatCommand("stats", "statistics of this client", _stats),
        ChatCommand("server", "statistics of the server", _server),
        ChatCommand("health", "health of the server, and its active streams", _health),
        ChatCommand("docs", "open the API documentation in the browser", _docs),
        ChatCommand("demo", "open the web page in the browser", _demo),
        ChatCommand("clear", "clear the screen", _clear),
        ChatCommand("quit", "leave", _quit),
    )
}


# Helpers of the commands


async def _find(app: App, argument: str) -> str:
    """Return the session's id that an argument is or begins. Without an argument, return the current session's."""
    if not argument:
        if app.state.session_id is None:
            raise CommandFailed("no session yet: write a message to begin one, or /open one of /sessions")
        return app.state.session_id
    if (whole := _whole(argument)) is not None:
        return whole
    server = await app.server()
    ids = [session.session_id async for session in server.sessions()]
    if argument in ids:
        return argument
    found = [each for each in ids if each.lower().startswith(argument.lower())]
    if len(found) != 1:
        problem = "none begins" if not found else f"{len(found)} begin"
        raise CommandFailed(f"expected the beginning of one session's id, but {problem} with {argument!r}")
    return found[0]


def _whole(argument: str) -> str | None:
    """Return the id if the argument is a whole UUID in any notation, otherwise None."""
    from uuid import UUID

    try:
        return str(UUID(argument))
    except ValueError:
        return None


def _show(app: App, title: str, rows: Sequence[tuple[str, str]]) -> None:
    app.say(title, "bold")
    for line in aligned(rows, app.console.width - 1):
        app.say(line)

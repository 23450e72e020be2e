"""The commands of the chat: one list that makes /help, the completion and what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .facts import Facts, of_health, of_server, of_session
from .formatting import aligned, count
from .state import short

if TYPE_CHECKING:
    from .app import App

LISTED = 500
"""Sessions that are listed at most."""

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "begin a new line"),
    ("Tab", "complete commands and sessions"),
    ("Up, Down", "earlier messages and commands; Ctrl-R searches them"),
    ("Ctrl-C", "stop the reply; a second time, leave it"),
    ("Ctrl-D", "leave"),
)


ALIASES = {"exit": "quit"}
"""What other programs call them."""


class CommandFailed(Exception):
    """Why a command cannot be done, in one line."""


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """`/NAME`. `argument` is the id of a session, where it takes one: `ID`, or `[ID]` for the current one without."""

    name: str
    summary: str
    run: Callable[[App, str], Awaitable[None]]
    argument: str = ""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


async def run_command(app: App, line: str) -> None:
    """Do what a line says that begins with a slash. Why it cannot be is said; what the server refuses is raised."""
    try:
        command, argument = _read(line)
        await command.run(app, argument)
    except CommandFailed as error:
        app.say(str(error), "red")


def find_command(name: str) -> ChatCommand | None:
    """By its name, however that is written."""
    return COMMANDS.get(ALIASES.get(name.lower(), name.lower()))


def _read(line: str) -> tuple[ChatCommand, str]:
    name, _, argument = line[1:].partition(" ")
    command, argument = find_command(name), argument.strip()
    if command is None:
        raise CommandFailed(f"there is no command /{name}; /help lists them, and // sends what begins with /")
    if argument and not command.argument:
        raise CommandFailed(f"expected /{command.name} alone, but got {argument!r} after it")
    if not argument and command.argument == "ID":
        raise CommandFailed(f"expected the beginning of a session's id after /{command.name}; /sessions lists them")
    return command, argument


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
    """The current session; how many messages it has is the server's word, because others may talk in it, too."""
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
    _show(app, "The server", of_server(app.url, await server.chat.stats()))


async def _health(app: App, _: str) -> None:
    server = await app.server()
    _show(app, "Health", of_health(await server.chat.health()))


async def _docs(app: App, _: str) -> None:
    await _open_page(app, "/docs")


async def _demo(app: App, _: str) -> None:
    await _open_page(app, "/demo")


async def _open_page(app: App, path: str) -> None:
    address = app.url + path
    app.say(address)
    # In a thread, because some browsers are waited for.
    if not await asyncio.to_thread(_browse, address):
        app.say("There is no browser here that could be opened: open the address in yours.", "yellow")


def _browse(address: str) -> bool:
    # Here and not above, as the prompt does not wait for what few need.
    import webbrowser

    return webbrowser.open(address)


async def _new(app: App, _: str) -> None:
    server = await app.server()
    session = await server.chat.new_session()
    app.state.statistics.sessions_created += 1
    app.state.session_id = session.session_id
    app.say(f"New session {session.session_id}.")


async def _sessions(app: App, _: str) -> None:
    server = await app.server()
    # Here and not above, as nothing that is drawn is needed before a prompt.
    from .listing import Listing

    listing = Listing(app.console.width - 1, app.state.session_id)
    shown = 0
    async for session in server.chat.sessions():
        if shown == LISTED:
            app.say(f"  … and more; these are the {LISTED} that were used last.", "dim")
            return
        if not shown:
            app.say(listing.heading, "bold")
        app.say(listing.line(session))
        shown += 1
    if not shown:
        app.state.session_id = None  # others have deleted it
        app.say("There are no sessions: write something, and one begins.")


def _of_session(run: Callable[[App, str], Awaitable[None]]) -> Callable[[App, str], Awaitable[None]]:
    """A command for the id of a session, made one for its beginning, or for none where the current one is meant."""

    async def run_with_id(app: App, argument: str) -> None:
        session_id = await _find(app, argument)
        await app.server()
        with _noticing(app, session_id):
            await run(app, session_id)

    return run_with_id


@contextmanager
def _noticing(app: App, session_id: str) -> Iterator[None]:
    """If a session that others have deleted was the current one, it is so no more."""
    # Here and not above, as it comes with the server.
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
    await app.go_on(session_id)


@_of_session
async def _reset(app: App, session_id: str) -> None:
    server = await app.server()
    await server.chat.clear(session_id)
    app.say(f"The history of {short(session_id)} is empty now.")


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
        ChatCommand("info", "this session: model, messages, duration, created", _info, "[ID]"),
        ChatCommand("sessions", "list all sessions, the current one marked", _sessions),
        ChatCommand("open", "go on with another session", _open, "ID"),
        ChatCommand("reset", "empty the history of this session", _reset, "[ID]"),
        ChatCommand("delete", "delete this session; asks first", _delete, "[ID]"),
        ChatCommand("stats", "statistics of this client", _stats),
        ChatCommand("server", "statistics of the server", _server),
        ChatCommand("health", "health of the server, and its active streams", _health),
        ChatCommand("docs", "open the documentation of the API in the browser", _docs),
        ChatCommand("demo", "open the web page in the browser", _demo),
        ChatCommand("clear", "clear the screen", _clear),
        ChatCommand("quit", "leave", _quit),
    )
}


# What they share


async def _find(app: App, argument: str) -> str:
    """The whole id of the session that an argument is the beginning of; of the current one without an argument."""
    if not argument:
        if app.state.session_id is None:
            raise CommandFailed("there is no session yet: write something, and one begins, or /open one of /sessions")
        return app.state.session_id
    if (whole := _whole(argument)) is not None:
        return whole
    server = await app.server()
    ids = [session.session_id async for session in server.sessions()]
    found = [each for each in ids if each.startswith(argument.lower())]
    if len(found) != 1:
        found_so = "none begins" if not found else f"{len(found)} begin"
        raise CommandFailed(f"expected the beginning of one session's id, but {found_so} with {argument!r}")
    return found[0]


def _whole(argument: str) -> str | None:
    """An id that may be written in any way that is known for it."""
    from uuid import UUID

    try:
        return str(UUID(argument))
    except ValueError:
        return None


def _show(app: App, title: str, rows: Sequence[tuple[str, str]]) -> None:
    app.say(title, "bold")
    for line in aligned(rows, app.console.width - 1):
        app.say(line)

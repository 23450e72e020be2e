"""The commands of the chat: one list that makes /help, the completion and what runs."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .formatting import aligned, count, duration, moment
from .safe import safe_line
from .state import State, short

if TYPE_CHECKING:
    from rich.console import Console

    from ...client import Session
    from .server import Server

WHOLE = 36
"""Characters of a session's id."""

LISTED = 500
"""Sessions that are listed at most."""


KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "begin a new line"),
    ("Tab", "complete commands and sessions"),
    ("Ctrl-C", "stop the reply; a second time, leave it"),
    ("Ctrl-D", "leave"),
)


class Chatting(Protocol):
    """What commands act on."""

    url: str
    state: State
    server: Server
    leaving: bool

    @property
    def console(self) -> Console: ...
    def say(self, line: str, style: str = "") -> None: ...
    async def confirm(self, question: str) -> bool: ...
    async def go_on(self) -> None: ...
    async def message_count(self, session_id: str) -> str: ...
    def session_ids(self) -> AsyncIterator[str]: ...


class CommandFailed(Exception):
    """Why a command cannot be done, in one line."""


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """`/NAME`. `argument` is the id of a session, where it takes one: `ID`, or `[ID]` if it can do without."""

    name: str
    summary: str
    run: Callable[[Chatting, str], Awaitable[None]]
    argument: str = ""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


async def run_command(app: Chatting, line: str) -> None:
    """Do what a line says that begins with a slash; what cannot be done is one line."""
    # Here and not above, as the list of commands is needed at once, and a connection is not.
    from .server import ERRORS, sentence

    name, _, argument = line[1:].partition(" ")
    command = COMMANDS.get(name.lower())
    try:
        if command is None:
            raise CommandFailed(f"there is no command /{name}; /help lists them, and // sends what begins with /")
        if argument.strip() and not command.argument:
            raise CommandFailed(f"expected /{command.name} alone, but got {argument.strip()!r} after it")
        await command.run(app, argument.strip())
    except CommandFailed as error:
        app.say(str(error), "red")
    except ERRORS as error:
        app.say(sentence(error), "red")


# The commands


async def _help(app: Chatting, _: str) -> None:
    _show(app, "Commands", [(command.usage, command.summary) for command in COMMANDS.values()])
    _show(app, "Keys", KEYS)


async def _clear(app: Chatting, _: str) -> None:
    app.console.clear()


async def _quit(app: Chatting, _: str) -> None:
    app.leaving = True


async def _stats(app: Chatting, _: str) -> None:
    session_id = app.state.session_id
    rows = list(app.state.statistics.rows())
    rows.append(("Current session", session_id or "none yet"))
    if session_id is not None:
        # The server's word, because others may talk in it, too.
        rows.append(("Messages in it", await app.message_count(session_id)))
    _show(app, "This client", rows)


async def _server(app: Chatting, _: str) -> None:
    stats = await app.server.chat.stats()
    rows = [
        ("Address", app.url),
        ("Model", stats.model),
        ("Framework", stats.framework),
        ("Uptime", duration(stats.uptime)),
        ("Requests", str(stats.requests.total)),
        ("Successful requests", str(stats.requests.successful)),
        ("Failed requests", str(stats.requests.failed)),
        ("Active sessions", "unknown" if stats.active_sessions is None else str(stats.active_sessions)),
        ("Active streams", str(stats.active_streams)),
        ("Sessions created", str(stats.sessions_created)),
        ("Chunks", str(stats.chunks)),
        ("Average response time", f"{stats.average_response_time:.2f} s"),
    ]
    _show(app, "The server", rows)


async def _health(app: Chatting, _: str) -> None:
    health = await app.server.chat.health()
    rows = [
        ("Status", health.status if health.reason is None else f"{health.status}: {health.reason}"),
        ("Active streams", str(health.active_streams)),
        ("Active connections", str(health.active_connections)),
        ("Database", health.database or "unknown"),
        ("Uptime", duration(health.uptime)),
    ]
    _show(app, "Health", rows)


async def _docs(app: Chatting, _: str) -> None:
    await _open_page(app, "/docs")


async def _demo(app: Chatting, _: str) -> None:
    await _open_page(app, "/demo")


async def _open_page(app: Chatting, path: str) -> None:
    address = app.url + path
    app.say(address)
    # In a thread, because some browsers are waited for.
    if not await asyncio.to_thread(webbrowser.open, address):
        app.say("There is no browser here that could be opened: open the address in yours.", "yellow")


async def _new(app: Chatting, _: str) -> None:
    session = await app.server.chat.new_session()
    app.state.statistics.sessions_created += 1
    app.state.session_id = session.session_id
    app.say(f"New session {session.session_id}.")


async def _info(app: Chatting, argument: str) -> None:
    session_id = await _find(app, argument)
    found = await app.server.chat.session(session_id, limit=200)
    by_user = sum(message.role == "user" for message in found.messages)
    rows = [
        ("Session", found.session_id),
        ("Title", found.title or "–"),
        ("Model", found.model),
        ("Messages", str(found.message_count)),
        ("  yours", str(found.message_count // 2 if found.earlier else by_user)),
        ("  replies", str(found.message_count // 2 if found.earlier else len(found.messages) - by_user)),
        ("Duration", duration((found.updated - found.created).total_seconds())),
        ("Created", moment(found.created)),
        ("Last used", moment(found.updated)),
        ("State", "answering" if found.stream_id else "idle"),
    ]
    _show(app, "Session", rows)


async def _sessions(app: Chatting, _: str) -> None:
    shown = 0
    async for session in app.server.chat.sessions():
        if shown == LISTED:
            app.say(f"  … and more; these are the {LISTED} that were used last.", "dim")
            return
        if not shown:
            app.say(f"  {'Session':8}  {'Messages':>8}  {'Last used':16}  Title", "bold")
        shown += 1
        app.say(_row(session, session.session_id == app.state.session_id))
    if not shown:
        app.say("There are no sessions yet: write something, and one begins.")


async def _open(app: Chatting, argument: str) -> None:
    if not argument:
        raise CommandFailed("expected /open and the id of a session, or its beginning; /sessions lists them")
    session_id = await _find(app, argument)
    app.state.session_id = session_id
    await app.go_on()


async def _reset(app: Chatting, argument: str) -> None:
    session_id = await _find(app, argument)
    await app.server.chat.clear(session_id)
    app.say(f"The history of {short(session_id)} is empty now.")


async def _delete(app: Chatting, argument: str) -> None:
    session_id = await _find(app, argument)
    found = await app.server.chat.session(session_id, limit=1)
    what = f"session {short(session_id)} with {count(found.message_count, 'message')}"
    if not await app.confirm(f"Delete {what}? [y/N] "):
        app.say("Nothing was deleted.")
        return
    await app.server.chat.delete(session_id)
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


async def _find(app: Chatting, argument: str) -> str:
    """The whole id of the session that an argument is the beginning of; of the current one without an argument."""
    if not argument:
        if app.state.session_id is None:
            raise CommandFailed("there is no session yet: write something, and one begins, or /open one of /sessions")
        return app.state.session_id
    if len(argument) == WHOLE:
        return argument.lower()
    found = [session_id async for session_id in app.session_ids() if session_id.startswith(argument.lower())]
    if len(found) != 1:
        found_so = "none begins" if not found else f"{len(found)} begin"
        raise CommandFailed(f"expected the beginning of one session's id, but {found_so} with {argument!r}")
    return found[0]


def _show(app: Chatting, title: str, rows: Sequence[tuple[str, str]]) -> None:
    app.say(title, "bold")
    for line in aligned(rows, app.console.width - 1):
        app.say(line)


def _row(session: Session, current: bool) -> str:
    title = safe_line(session.title) or "–"
    title = title if len(title) <= 40 else f"{title[:39]}…"
    answering = " (answering)" if session.stream_id else ""
    mark = "*" if current else " "
    columns = short(session.session_id), f"{session.message_count:>8}", moment(session.updated), title + answering
    return f"{mark} " + "  ".join(columns)

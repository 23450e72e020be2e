"""What the user types: a prompt with history, completion and several lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input as Terminal
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.key_processor import KeyProcessor
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import TabsProcessor

from ..text import safe_line, short
from .commands import COMMANDS, ChatCommand, find_command

if TYPE_CHECKING:
    from ...client import Session

Sessions = Callable[[], "AsyncIterator[Session]"]

YES = ("y", "yes")

PAUSE = 0.1
"""Seconds without a key after which a burst is over."""


def history_path(environment: Mapping[str, str]) -> Path:
    """The file for what was typed, in the place where the system keeps such state."""
    base = environment.get("XDG_STATE_HOME") or environment.get("LOCALAPPDATA") or "~/.local/state"
    return Path(base).expanduser() / "tailrace" / "history"


def open_history(path: Path) -> History:
    """Open a history that only its user can read. If the file cannot be written, the history ends with the chat."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)  # an existing file may have other permissions
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class CommandCompleter(Completer):
    """Completes the names of commands, and the ids of sessions after a command that takes one."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        for command in commands_that_begin(text):
            yield Completion(completed(command), -len(text), display=command.usage, display_meta=command.summary)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        for completion in self.get_completions(document, complete_event):
            yield completion
        name, space, begun = document.text_before_cursor.partition(" ")
        command = find_command(name[1:])
        if not (space and name.startswith("/") and command is not None and command.argument):
            return
        async for session in self._sessions():
            if session.session_id.lower().startswith(begun.lower()):
                title = safe_line(session.title) or "–"
                yield Completion(session.session_id, -len(begun), short(session.session_id), title)


class Input:
    """Reads lines from a terminal. EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C at an empty prompt.

    `on_shown` is called whenever the prompt has been drawn.
    """

    def __init__(
        self, sessions: Sessions, on_shown: Callable[[], None], environment: Mapping[str, str] = os.environ
    ) -> None:
        self.is_reading = False
        self._burst = Burst()
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history_path(environment)),
            completer=CommandCompleter(sessions),
            complete_while_typing=False,
            multiline=True,
            key_bindings=self._burst.bindings(),
            prompt_continuation=lambda width, number, wrapped: " " * width,
            input_processors=[TabsProcessor(char1=" ", char2=" ")],
            enable_open_in_editor=False,
            enable_suspend=True,
        )
        self._session.app.key_processor.before_key_press += self._burst.note
        self._session.app.before_render += lambda _: self._make_room()
        self._session.app.after_render += lambda _: on_shown()

    async def read(self, name: str, default: str = "") -> str:
        """A message or a command, stripped. It is empty if Ctrl-C has discarded what was typed."""
        self.is_reading = True
        try:
            return (await self._session.prompt_async(f"{name}> ", default=default)).strip()
        except KeyboardInterrupt:
            if self._session.default_buffer.text:
                return ""
            raise
        finally:
            self.is_reading = False
            self._burst.end()

    async def confirm(self, question: str) -> bool:
        """Ask a question. Only what is typed after it can answer it."""
        session: PromptSession[str] = PromptSession(enable_suspend=True)
        forget_typed(session.input)
        self.is_reading = True
        try:
            answer = await session.prompt_async(question)
        except (EOFError, KeyboardInterrupt):
            return False
        finally:
            self.is_reading = False
        return answer.strip().lower() in YES

    async def print_above(self, write: Callable[[], None]) -> None:
        """Print something above the prompt, which is then drawn again."""
        await run_in_terminal(write)

    def _make_room(self) -> None:
        """Leave room below the prompt for the list of commands, as far as the terminal has rows."""
        rows = self._session.output.get_size().rows
        self._session.reserve_space_for_menu = max(1, min(len(COMMANDS) + 1, rows - 1))


class Burst:
    """Tells pasted text from typed text where the terminal does not mark it.

    Without bracketed paste each line of a pasted text ends with Enter, and would be a message. But its keys come many
    at a time, where typed ones come one by one. So Enter among other keys is a line of the text. Behind the last one it
    sends the text, unless more keys follow at once. A command is one line, and Enter always runs it.
    """

    def __init__(self) -> None:
        self._follows = False  # whether the last key came together with others before it
        self._continues = False  # and with others after it
        self._waiting: tuple[asyncio.TimerHandle, Buffer] | None = None

    def note(self, keys: KeyProcessor) -> None:
        """A key was pressed. If Enter came just before it, that was not the end."""
        self._follows = self._continues
        # The terminal answers the question where the cursor is as if that were a key.
        self._continues = any(each.key != Keys.CPRResponse for each in keys.input_queue)
        if self._waiting is not None:
            timer, buffer = self._waiting
            self._waiting = None
            timer.cancel()
            buffer.insert_text("\n")

    def bindings(self) -> KeyBindings:
        """The keys of a message. While the user searches the history, they belong to the search."""
        keys = KeyBindings()
        in_message = has_focus(DEFAULT_BUFFER)

        @keys.add("enter", filter=in_message)
        def enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if is_command(buffer.text) or not (self._follows or self._continues):
                buffer.validate_and_handle()
            elif self._continues:
                buffer.insert_text("\n")
            else:
                self._waiting = asyncio.get_running_loop().call_later(PAUSE, self._send), buffer

        @keys.add("escape", "enter", filter=in_message)
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("tab", filter=in_message & Condition(self._is_in_text))
        def tab(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\t")

        return keys

    def end(self) -> None:
        """The prompt has ended, and with it whatever was waited for."""
        if self._waiting is not None:
            self._waiting[0].cancel()
            self._waiting = None

    def _is_in_text(self) -> bool:
        """Whether a tab can only be part of a pasted text."""
        return (self._follows or self._continues) and not get_app().current_buffer.text.startswith("/")

    def _send(self) -> None:
        assert self._waiting is not None
        _, buffer = self._waiting
        self._waiting = None
        buffer.validate_and_handle()


def forget_typed(terminal: Terminal) -> None:
    """Discard what was typed but not read yet."""
    clear_typeahead(terminal)
    try:
        import termios
    except ModuleNotFoundError:  # pragma: no cover - Windows has no such queue
        return
    termios.tcflush(terminal.fileno(), termios.TCIFLUSH)


def is_command(text: str) -> bool:
    """Whether a text is one line that begins with a command."""
    name, _, rest = text[1:].partition(" ")
    return text.startswith("/") and "\n" not in rest and find_command(name) is not None


def commands_that_begin(text: str) -> list[ChatCommand]:
    """The commands that begin with a text; none if the text is more than part of a name."""
    if not text.startswith("/") or text.startswith("//") or any(char.isspace() for char in text):
        return []
    return [command for command in COMMANDS.values() if f"/{command.name}".startswith(text.lower())]


def completed(command: ChatCommand) -> str:
    """The command as completion inserts it: with a space if an argument has to follow."""
    return f"/{command.name} " if command.argument == "ID" else f"/{command.name}"

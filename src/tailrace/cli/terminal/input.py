"""The user's input: a prompt with history, completion and several lines."""

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
"""The seconds without a key after which a burst is over."""


def history_path(environment: Mapping[str, str]) -> Path:
    """Return the file for the history of inputs, in the system's place for such state."""
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
        if not (space and name.startswith("/") and command is not None and command.takes_session):
            return
        async for session in self._sessions():
            if session.session_id.lower().startswith(begun.lower()):
                title = safe_line(session.title) or "–"
                yield Completion(session.session_id, -len(begun), short(session.session_id), title)


class Input:
    """Reads lines from a terminal. Ctrl-D raises EOFError, and Ctrl-C at an empty prompt raises KeyboardInterrupt.

    It calls `on_shown` whenever it has drawn the prompt.
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
        """Return a message or a command, stripped. It is empty if Ctrl-C discarded the input."""
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
        """Ask a question. Discard all earlier input, so that it cannot be the answer."""
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
        """Print something above the prompt, and draw the prompt again."""
        await run_in_terminal(write)

    def _make_room(self) -> None:
        """Leave room below the prompt for the list of commands, if the terminal has enough rows."""
        rows = self._session.output.get_size().rows
        self._session.reserve_space_for_menu = max(1, min(len(COMMANDS) + 1, rows - 1))


class Burst:
    """Distinguishes pasted text from typed text if the terminal does not mark it.

    Without bracketed paste, each line of a pasted text ends with Enter, and would become a message. But pasted keys
    arrive many at a time, and typed keys arrive one by one. So Enter among other keys is a line break. Enter as the
    last key sends the text, unless more keys follow immediately. A command is one line, and Enter always runs it.
    """

    def __init__(self) -> None:
        self._follows = False  # True if the last key came together with keys before it
        self._continues = False  # True if it came together with keys after it
        self._waiting: tuple[asyncio.TimerHandle, Buffer] | None = None

    def note(self, keys: KeyProcessor) -> None:
        """Note that a key was pressed. If Enter came just before it, that Enter was a line break."""
        self._follows = self._continues
        # The terminal reports the position of the cursor as if it were a key.
        self._continues = any(each.key != Keys.CPRResponse for each in keys.input_queue)
        if self._waiting is not None:
            timer, buffer = self._waiting
            self._waiting = None
            timer.cancel()
            buffer.insert_text("\n")

    def bindings(self) -> KeyBindings:
        """Return the key bindings of a message. They are off while the user searches the history."""
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
        """End the wait for further keys, because the prompt has ended."""
        if self._waiting is not None:
            self._waiting[0].cancel()
            self._waiting = None

    def _is_in_text(self) -> bool:
        """Tell whether a tab can only be part of a pasted text."""
        return (self._follows or self._continues) and not get_app().current_buffer.text.startswith("/")

    def _send(self) -> None:
        assert self._waiting is not None
        _, buffer = self._waiting
        self._waiting = None
        buffer.validate_and_handle()


def forget_typed(terminal: Terminal) -> None:
    """Discard input that was typed but not read yet."""
    clear_typeahead(terminal)
    try:
        import termios
    except ModuleNotFoundError:  # pragma: no cover - Windows has no such queue
        return
    termios.tcflush(terminal.fileno(), termios.TCIFLUSH)


def is_command(text: str) -> bool:
    """Tell whether a text is one line that begins with a command."""
    name, _, rest = text[1:].partition(" ")
    return text.startswith("/") and "\n" not in rest and find_command(name) is not None


def commands_that_begin(text: str) -> list[ChatCommand]:
    """Return the commands that begin with a text, or none if the text is more than a part of a name."""
    if not text.startswith("/") or text.startswith("//") or any(char.isspace() for char in text):
        return []
    return [command for command in COMMANDS.values() if f"/{command.name}".startswith(text.lower())]


def completed(command: ChatCommand) -> str:
    """Return the command as completion inserts it, with a space if an argument must follow."""
    return f"/{command.name} " if command.needs_argument else f"/{command.name}"

"""What is typed: a prompt with history, completion and several lines."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input as Keys
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from .commands import COMMANDS, ChatCommand, find_command
from .safe import safe_line
from .state import short

if TYPE_CHECKING:
    from ...client import Session

Sessions = Callable[[], "AsyncIterator[Session]"]

YES = ("y", "yes")


def history_path(environment: Mapping[str, str]) -> Path:
    """The file for what was typed, where a system keeps what a user's programs remember."""
    base = environment.get("XDG_STATE_HOME") or environment.get("LOCALAPPDATA") or "~/.local/state"
    return Path(base).expanduser() / "tailrace" / "history"


def open_history(path: Path) -> History:
    """The history in a file that only its user can read; where there can be none, it is forgotten at the end."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)  # as one that was there before may have been made by others
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class CommandCompleter(Completer):
    """Commands by their name, and where a command takes a session its id, beside the title."""

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
            if session.session_id.startswith(begun.lower()):
                title = safe_line(session.title) or "–"
                yield Completion(session.session_id, -len(begun), short(session.session_id), title)


class Input:
    """Reads lines from a terminal. EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C.

    `on_shown` is called whenever the prompt was drawn.
    """

    def __init__(
        self, sessions: Sessions, on_shown: Callable[[], None], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history_path(environment)),
            completer=CommandCompleter(sessions),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=lambda width, number, wrapped: " " * width,
            enable_open_in_editor=False,
            enable_suspend=True,
        )
        self._session.app.before_render += lambda _: self._make_room()
        self._session.app.after_render += lambda _: on_shown()

    async def read(self, name: str, default: str = "") -> str:
        """A message or a command, without spaces around it; nothing, if Ctrl-C has dropped what was typed."""
        try:
            return (await self._session.prompt_async(f"{name}> ", default=default)).strip()
        except KeyboardInterrupt:
            if self._session.default_buffer.text:
                return ""
            raise

    async def confirm(self, question: str) -> bool:
        """Whether the answer is yes; what was typed before the question is none."""
        session: PromptSession[str] = PromptSession(enable_suspend=True)
        forget_typed(session.input)
        try:
            answer = await session.prompt_async(question)
        except (EOFError, KeyboardInterrupt):
            return False
        return answer.strip().lower() in YES

    def _make_room(self) -> None:
        """For all commands below the prompt, as far as the terminal has so many rows."""
        rows = self._session.output.get_size().rows
        self._session.reserve_space_for_menu = max(1, min(len(COMMANDS) + 1, rows - 1))


def forget_typed(keys: Keys) -> None:
    """Drop what was typed and not read yet."""
    clear_typeahead(keys)
    try:
        import termios
    except ModuleNotFoundError:  # pragma: no cover - on Windows, where nothing is known of it
        return
    termios.tcflush(keys.fileno(), termios.TCIFLUSH)


def is_command_name(text: str) -> bool:
    """Whether a text is the beginning of a command, and nothing more yet."""
    return text.startswith("/") and not text.startswith("//") and not any(char.isspace() for char in text)


def commands_that_begin(text: str) -> list[ChatCommand]:
    if not is_command_name(text):
        return []
    return [command for command in COMMANDS.values() if f"/{command.name}".startswith(text.lower())]


def completed(command: ChatCommand) -> str:
    """With a space, where it wants something more."""
    return f"/{command.name} " if command.argument == "ID" else f"/{command.name}"


def _keys() -> KeyBindings:
    keys = KeyBindings()

    # In a search through the history these keys end the search.
    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys

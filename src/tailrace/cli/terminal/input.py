"""What is typed: a prompt with history, completion and several lines."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from .commands import COMMANDS, ChatCommand

SessionIds = Callable[[], AsyncIterator[str]]


def history_path(environment: Mapping[str, str]) -> Path:
    """The file for what was typed, where a system keeps what a user's programs remember."""
    base = environment.get("XDG_STATE_HOME") or environment.get("LOCALAPPDATA") or "~/.local/state"
    return Path(base).expanduser() / "tailrace" / "history"


def open_history(path: Path) -> History:
    """The history in a file that only its user can read; where there can be none, it is forgotten at the end."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class CommandCompleter(Completer):
    """Commands by their name, and the ids of sessions where a command takes one."""

    def __init__(self, session_ids: SessionIds) -> None:
        self._session_ids = session_ids

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
        command = COMMANDS.get(name[1:])
        if not (space and name.startswith("/") and command is not None and command.argument):
            return
        with suppress(OSError):
            async for session_id in self._session_ids():
                if session_id.startswith(begun.lower()):
                    yield Completion(session_id, -len(begun))


class Input:
    """Reads lines from a terminal. EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C.

    `on_shown` is called whenever the prompt was drawn.
    """

    def __init__(
        self, session_ids: SessionIds, on_shown: Callable[[], None], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history_path(environment)),
            completer=CommandCompleter(session_ids),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=lambda width, number, wrapped: " " * width,
            enable_open_in_editor=False,
        )
        self._session.app.after_render += lambda _: on_shown()

    async def read(self, name: str, default: str = "") -> str:
        """A message or a command, without spaces around it."""
        return (await self._session.prompt_async(f"{name}> ", default=default)).strip()

    async def confirm(self, question: str) -> bool:
        """Whether the answer begins with a y."""
        session: PromptSession[str] = PromptSession()
        try:
            answer = await session.prompt_async(question)
        except (EOFError, KeyboardInterrupt):
            return False
        return answer.strip().lower().startswith("y")


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

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys

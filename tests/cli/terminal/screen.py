"""Runs a program in a real pseudo-terminal, and reads its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pyte

from tests.cli.served import PATIENCE, SILENT
from tests.serving import ROOT

KEYS = {"ctrl-c": "\x03", "ctrl-d": "\x04", "tab": "\t", "enter": "\r", "alt-enter": "\x1b\r", "up": "\x1b[A"}


TAILRACE = (sys.executable, "-m", "tailrace")


class Terminal:
    """A terminal of its own. `raw` is everything that was written, and `lines` includes what scrolled off."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self.raw = ""
        self.process: subprocess.Popen[bytes]
        self._stream = pyte.ByteStream(self.screen)
        self._changed = threading.Condition()
        self._ended = False
        self._sent = ""
        self._before = -1
        self._master, self._slave = pty.openpty()
        self._set_size(columns, rows)

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment,
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(self._slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, *keys: str) -> None:
        """Type text, or keys by their names."""
        os.write(self._master, "".join(KEYS.get(key, key) for key in keys).encode(errors="surrogateescape"))

    def send(self, line: str) -> None:
        self._sent = f"> {line}"
        self._before = self.text.count(self._sent)
        self.type(line, "enter")

    def ask(self, line: str, *parts: str) -> str:
        """Send a line, wait until these parts appear after it, and return the text after it."""
        self.send(line)
        return self.wait(*parts)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size. Lines that are too long are wrapped again, as most terminals do."""
        with self._changed:
            lines, cursor = self.lines, self.screen.cursor.x
            self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
            self._stream = pyte.ByteStream(self.screen)
            # The cursor is at the end of the last line, or behind spaces that `lines` has dropped.
            self._stream.feed("\r\n".join([*lines[:-1], lines[-1].ljust(cursor)]).encode())
            self._set_size(columns, rows)

    def wait(self, *parts: str, patience: float = PATIENCE) -> str:
        """Wait until the text after the last sent line has all parts, and return it; AssertionError if it never has."""
        self.until(lambda: all(part in self.said for part in parts), f"expected {parts}", patience)
        with self._changed:
            return self.said

    def prompt(self) -> None:
        """Wait for an empty prompt."""
        self.until(lambda: self.text.endswith(">"), "expected a prompt")

    def greeted(self) -> None:
        """Wait for the first prompt, and for what is printed above it once the server has answered."""
        self.prompt()
        self.until(lambda: "\nconnected · " in self.text and self.text.endswith(">"), "expected a connection")

    @property
    def said(self) -> str:
        """The text after the last sent line."""
        text = self.text
        return text[text.rindex(self._sent) :] if text.count(self._sent) > self._before else ""

    def until(self, condition: Callable[[], bool], otherwise: str = "", patience: float = PATIENCE) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self._ended, patience) or not condition():
                raise AssertionError(f"{otherwise}, but got\n" + "\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        """All lines, up to the last that is not empty."""
        rows = [*self.screen.history.top, *(self.screen.buffer[number] for number in range(self.screen.lines))]
        width = self.screen.columns
        # A wide character has an empty cell after it.
        found = ["".join(row[column].data for column in range(width)).rstrip() for row in rows]
        while found and not found[-1]:
            found.pop()
        return found

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def echoes(self) -> bool:
        """Whether the terminal itself shows what is typed, and edits lines."""
        local = termios.tcgetattr(self._master)[3]
        return bool(local & termios.ECHO and local & termios.ICANON)

    def leave(self) -> None:
        """Press Ctrl-D at a prompt. The chat ends with status 0, and the terminal is as it was."""
        self.prompt()
        self.type("ctrl-d")
        assert self.end() == 0
        assert self.echoes

    def end(self) -> int:
        """Wait for the exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._master)

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # how a pseudo-terminal says that nobody has its other side
                data = b""
            with self._changed:
                if data:
                    self.raw += data.decode(errors="replace")
                    self._stream.feed(data)
                else:
                    self._ended = True
                self._changed.notify_all()
            # Programs ask where the cursor is, and nobody else answers. A question may come in two pieces.
            *asked, rest = (rest + data).split(b"\x1b[6n")
            rest = rest[-3:]
            for _ in asked:
                answer = f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R"
                os.write(self._master, answer.encode())
            if not data:
                return

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def terminal(
    folder: Path,
    *command: str,
    program: Sequence[str] = TAILRACE,
    size: tuple[int, int] = (80, 24),
    **environment: str,
) -> Iterator[Terminal]:
    """Run `tailrace …`, or another program, inside the block. Its history is in a folder."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    env = {
        **base,
        **{name: value for name, value in SILENT.items() if name != "NO_COLOR"},
        "PYTHONPATH": paths,
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "XDG_STATE_HOME": str(folder),
        **environment,
    }
    found = Terminal(*size)
    found.start([*program, *command], env)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def chatting(url: str, folder: Path, *options: str, columns: int = 80, **environment: str) -> Iterator[Terminal]:
    """Run the chat, connected and at its first prompt. If it still runs at the end of the block, it is left."""
    with terminal(folder, "chat", url, *options, size=(columns, 24), **environment) as found:
        found.greeted()
        yield found
        if found.process.poll() is None:
            found.leave()


@asynccontextmanager
async def chatting_with(
    url: str, folder: Path, *options: str, greets: bool = True, **environment: str
) -> AsyncIterator[Terminal]:
    """Run the chat for a server in the event loop of the test. `greets` is false if the server does not answer."""
    with terminal(folder, "chat", url, *options, size=(80, 24), **environment) as found:
        await to_thread(found.greeted if greets else found.prompt)
        yield found
        await to_thread(found.leave)


def session_of(screen: Terminal) -> str:
    """The short id in the last prompt."""
    return str(re.findall(r"^(\w+)>", screen.text, re.MULTILINE)[-1])

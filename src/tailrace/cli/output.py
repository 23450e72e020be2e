"""Write lines to a pipe, a socket, a terminal or a file. A slow reader there does not block the event loop."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from .command import CommandError

T = TypeVar("T")

PIECE = 4096
"""The bytes that a writable pipe takes without blocking: PIPE_BUF on Linux. Elsewhere, a write may block briefly."""

MAX_WAITING = 1 << 16
"""The most bytes of waiting lines. Beyond them, `put` waits too."""


class NobodyReads(Exception):
    """The other end of the pipe or socket is closed."""


class Output:
    """Writes lines to a file descriptor, all waiting lines in one write.

    It notices that the reader has left even while there is nothing to write. So `tailrace tail URL | head -n 1` ends
    without waiting for a second event.
    """

    def __init__(self, descriptor: int) -> None:
        self.mark: str | None = None
        """The mark of the last line with a mark that was written completely."""
        self._descriptor = descriptor
        self._lines: deque[tuple[bytes, str | None]] = deque()
        self._size = 0
        self._wanted = asyncio.Event()
        self._empty = asyncio.Event()
        self._complete = False
        self._is_broken = False
        # Terminals and files have no reader that can leave, and Windows cannot tell whether a pipe's reader has left.
        self._has_reader = os.name == "posix" and _is_read_by_another(os.fstat(descriptor).st_mode)

    async def put(self, line: bytes, mark: str | None) -> None:
        """Queue a line. Unless its mark is None, it replaces the previous one. Wait while the queue is full."""
        self._lines.append((line, mark))
        self._size += len(line)
        self._wanted.set()
        if self._size > MAX_WAITING:
            self._empty.clear()
            await self._empty.wait()

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work, write its lines during and after it, and return its result.

        If nobody reads the lines, or if they cannot be written, cancel the work and raise NobodyReads or CommandError.
        """
        working, writing = asyncio.create_task(work), asyncio.create_task(self._write_all())
        try:
            await asyncio.wait([working, writing], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                self._complete = True
                self._wanted.set()
            await writing
            return await working
        finally:
            for task in (working, writing):
                task.cancel()
            await asyncio.gather(working, writing, return_exceptions=True)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        if self._has_reader:
            loop.add_reader(self._descriptor, self._check, loop)
        try:
            while not (self._complete and not self._lines):
                await self._wanted.wait()
                self._wanted.clear()
                if self._is_broken:
                    raise NobodyReads
                while self._lines:
                    await self._write(*self._take())
                self._empty.set()
        finally:
            if self._has_reader:
                loop.remove_reader(self._descriptor)

    def _take(self) -> tuple[bytes, str | None]:
        """Take lines for one write. Return them and the mark after them."""
        taken: list[bytes] = []
        size, mark = 0, self.mark
        while self._lines and (not taken or size + len(self._lines[0][0]) <= PIECE):
            line, marked = self._lines.popleft()
            taken.append(line)
            size += len(line)
            mark = mark if marked is None else marked
        self._size -= size
        return b"".join(taken), mark

    async def _write(self, data: bytes, mark: str | None) -> None:
        left = memoryview(data)
        while left:
            if self._has_reader and not _poll(self._descriptor, select.POLLOUT):
                await self._wait_until_writable()
            try:
                left = left[os.write(self._descriptor, left[:PIECE]) :]
            except BlockingIOError:  # another program has made the terminal non-blocking
                await self._wait_until_writable()
            except ConnectionError:
                raise NobodyReads from None
            except OSError as error:
                raise CommandError(f"cannot write to the standard output: {error.strerror}") from None
        self.mark = mark

    async def _wait_until_writable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._descriptor)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check whether the other end is closed. If not, ignore further events of the descriptor.

        Under sshd, the socket is also the input, and the end of the input does not mean the end of the output.
        """
        loop.remove_reader(self._descriptor)
        self._is_broken = bool(_poll(self._descriptor, 0))
        self._wanted.set()


def _is_read_by_another(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _poll(descriptor: int, events: int) -> int:
    """Return those of the events that the descriptor has now, and its errors."""
    poll = select.poll()
    poll.register(descriptor, events)
    return sum(found for _, found in poll.poll(0))

"""Lines on their way to a pipe, a socket, a terminal or a file. Slow reading there holds up nothing else."""

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
"""Bytes that a writable pipe takes without blocking: PIPE_BUF on Linux. Elsewhere a write may block for a moment."""

MAX_WAITING = 1 << 16
"""Bytes of lines that may wait. Beyond them `put` waits too."""


class NobodyReads(Exception):
    """The other end of the pipe or socket is closed."""


class Output:
    """Writes lines to a file descriptor, those that are there together in one write.

    It notices that the reader has gone even while there is nothing to write: `tailrace tail URL | head -n 1` ends
    without waiting for a second event.
    """

    def __init__(self, descriptor: int) -> None:
        self.mark: str | None = None
        """The mark of the last line that was written whole and had one."""
        self._descriptor = descriptor
        self._lines: deque[tuple[bytes, str | None]] = deque()
        self._size = 0
        self._wanted = asyncio.Event()
        self._empty = asyncio.Event()
        self._complete = False
        self._is_broken = False
        # Terminals and files have no reader that could leave, and Windows cannot tell whether a pipe's has.
        self._has_reader = os.name == "posix" and _is_read_by_another(os.fstat(descriptor).st_mode)

    async def put(self, line: bytes, mark: str | None) -> None:
        """Queue a line. Its mark replaces the one before, unless it is None. Waits while the queue is full."""
        self._lines.append((line, mark))
        self._size += len(line)
        self._wanted.set()
        if self._size > MAX_WAITING:
            self._empty.clear()
            await self._empty.wait()

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work, write its lines meanwhile and afterwards, and return its result.

        NobodyReads cancels the work, and so does CommandError if the lines cannot be written.
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
        """Lines for one write, and the mark after them."""
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
        """Look whether the other end is closed. If it has something else to say, ignore it from now on.

        Under sshd the socket is the input as well, and the end of the input says nothing about the output.
        """
        loop.remove_reader(self._descriptor)
        self._is_broken = bool(_poll(self._descriptor, 0))
        self._wanted.set()


def _is_read_by_another(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _poll(descriptor: int, events: int) -> int:
    """Which of the events, or which errors, the descriptor has now."""
    poll = select.poll()
    poll.register(descriptor, events)
    return sum(found for _, found in poll.poll(0))

"""Lines for a pipe, a socket, a terminal or a file. While nobody reads them, nothing else has to wait."""

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
"""Bytes that a pipe takes at once when it takes any (PIPE_BUF of Linux; elsewhere a write may block for a moment)."""

MAX_WAITING = 1 << 16
"""Bytes of lines that wait before whoever has more of them does."""


class NobodyReads(Exception):
    """The other end of the pipe or socket is closed."""


class Output:
    """Lines on their way to a file descriptor.

    Those that come together are written together, and at once. That nobody reads any more is noticed also while
    there is nothing to write: `tailrace tail URL | head -n 1` does not wait for a second event.
    """

    def __init__(self, descriptor: int) -> None:
        self.mark: str | None = None
        """The last one that was put with a line that is written as a whole."""
        self._descriptor = descriptor
        self._lines: deque[tuple[bytes, str | None]] = deque()
        self._size = 0
        self._wanted = asyncio.Event()
        self._empty = asyncio.Event()
        self._complete = False
        self._is_broken = False
        # Of terminals and files nothing more is to be known, and Windows cannot tell it of the others.
        self._has_reader = os.name == "posix" and _is_read_by_another(os.fstat(descriptor).st_mode)

    async def put(self, line: bytes, mark: str | None) -> None:
        """Have a line written, with a mark that stays where it is None; waits while too many do."""
        self._lines.append((line, mark))
        self._size += len(line)
        self._wanted.set()
        if self._size > MAX_WAITING:
            self._empty.clear()
            await self._empty.wait()

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work, while which its lines are written, and after them.

        The work is cancelled by NobodyReads, and by CommandError where they cannot be written.
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
            except BlockingIOError:  # a terminal, for instance, that another of its programs wants not to wait for
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
        """The other end has something to say. If that is not that it is closed, nothing else is asked of it.

        A socket may be the input as well, as under sshd, and the end of that says nothing of the output.
        """
        loop.remove_reader(self._descriptor)
        self._is_broken = bool(_poll(self._descriptor, 0))
        self._wanted.set()


def _is_read_by_another(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _poll(descriptor: int, events: int) -> int:
    """Those of the events, or the errors, that are there now."""
    poll = select.poll()
    poll.register(descriptor, events)
    return sum(found for _, found in poll.poll(0))

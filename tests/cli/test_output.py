from __future__ import annotations

import asyncio
import os
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.cli.command import CommandError
from tailrace.cli.output import MAX_WAITING, NobodyReads, Output
from tests.raw import BOUND


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends; a test closes one by `os.close` and puts another in its place."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def close(descriptor: int) -> None:
    """End the reading of a pipe, in whose place nothing is."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


async def read(descriptor: int, size: int) -> bytes:
    """So many bytes, without keeping the event loop waiting."""
    got = b""
    async with asyncio.timeout(BOUND):
        while len(got) < size:
            got += await asyncio.to_thread(os.read, descriptor, size - len(got))
    return got


async def test_lines_are_written_in_order_before_the_work_is_over(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)

    async def work() -> str:
        for number in range(3):
            await output.put(b"%d\n" % number, f"after {number}" if number < 2 else None)
        return "result"

    assert await output.during(work()) == "result"
    assert await read(reading, 6) == b"0\n1\n2\n"
    assert output.mark == "after 1"


async def test_lines_that_come_together_are_written_together(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)

    async def work() -> bytes:
        await output.put(b"a\n", None)
        await output.put(b"b\n", None)
        return await asyncio.to_thread(os.read, reading, 100)

    async with asyncio.timeout(BOUND):
        assert await output.during(work()) == b"a\nb\n"


async def test_a_slow_reader_keeps_the_work_waiting_and_nothing_else(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    line = b"x" * 999 + b"\n"
    total = 4 * MAX_WAITING // len(line)
    put = 0

    async def work() -> None:
        nonlocal put
        for number in range(total):
            await output.put(line, str(number))
            put = number + 1

    async with asyncio.timeout(BOUND):
        during = asyncio.create_task(output.during(work()))
        got = await read(reading, 1)
        # What the pipe holds and what may wait is less than there is.
        assert put < total
        got += await read(reading, total * len(line) - 1)
        await during
    assert got == line * total
    assert output.mark == str(total - 1)


async def test_a_line_may_be_longer_than_a_pipe(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    line = os.urandom(1 << 18)
    got, _ = await asyncio.gather(read(reading, len(line)), output.during(output.put(line, "end")))
    assert got == line
    assert output.mark == "end"


async def test_an_interrupted_line_leaves_the_mark_of_the_one_before(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    more = asyncio.Event()

    async def work() -> None:
        await output.put(b"whole\n", "whole")
        await more.wait()
        await output.put(b"x" * (1 << 20), "half")

    during = asyncio.create_task(output.during(work()))
    assert await read(reading, 6) == b"whole\n"
    more.set()
    await read(reading, 1)
    during.cancel()
    with pytest.raises(asyncio.CancelledError):
        await during
    assert output.mark == "whole"


async def test_that_nobody_reads_is_noticed_while_there_is_nothing_to_write(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        await output.put(b"a\n", None)
        await read(reading, 2)
        close(reading)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(NobodyReads):
        async with asyncio.timeout(BOUND):
            await output.during(work())
    assert cancelled


async def test_that_nobody_reads_is_noticed_while_a_line_is_being_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)

    async def stop_reading() -> None:
        await read(reading, 1)
        close(reading)

    with pytest.raises(NobodyReads):
        await asyncio.gather(output.during(output.put(b"x" * (1 << 20), None)), stop_reading())


async def test_a_pipe_with_something_to_read_is_no_end(tmp_path: Path) -> None:
    # Opened for both, as shells do with <>, the writer could read its own lines.
    os.mkfifo(tmp_path / "pipe")
    both = os.open(tmp_path / "pipe", os.O_RDWR)
    output = Output(both)

    async def work() -> None:
        await output.put(b"a\n", None)
        assert await read(both, 1) == b"a"
        await output.put(b"b\n", "b")

    try:
        await output.during(work())
        assert await read(both, 3) == b"\nb\n"
    finally:
        os.close(both)
    assert output.mark == "b"


async def test_an_error_of_the_work_comes_after_its_lines(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        output = Output(file.fileno())

        async def work() -> None:
            await output.put(b"a\n", "a")
            raise LookupError("gone")

        with pytest.raises(LookupError, match="gone"):
            await output.during(work())
    assert (tmp_path / "file").read_bytes() == b"a\n"
    assert output.mark == "a"


async def test_what_cannot_be_written_is_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        output = Output(full)
        with pytest.raises(CommandError, match="cannot write to the standard output: No space left"):
            await output.during(output.put(b"a\n", "a"))
    finally:
        os.close(full)
    assert output.mark is None


# What is neither a pipe nor a file


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    reading, writing = socket.socketpair()
    with reading, writing:
        yield reading, writing


async def test_a_slow_reader_of_a_socket_keeps_nothing_else_waiting(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    reading, writing = sockets
    line = os.urandom(1 << 20)
    output = Output(writing.fileno())
    got, _ = await asyncio.gather(read(reading.fileno(), len(line)), output.during(output.put(line, "end")))
    assert got == line
    assert output.mark == "end"


async def test_that_nobody_reads_a_socket_is_noticed_while_there_is_nothing_to_write(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    reading, writing = sockets
    output = Output(writing.fileno())

    async def work() -> None:
        await output.put(b"a\n", None)
        await read(reading.fileno(), 2)
        reading.close()
        await asyncio.Event().wait()

    with pytest.raises(NobodyReads):
        async with asyncio.timeout(BOUND):
            await output.during(work())


async def test_the_end_of_an_input_on_the_same_socket_is_none_of_the_output(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    # Which is what sshd gives a command without a terminal.
    reading, writing = sockets
    output = Output(writing.fileno())

    async def work() -> None:
        reading.shutdown(socket.SHUT_WR)
        await output.put(b"a\n", None)
        await read(reading.fileno(), 2)
        await output.put(b"b\n", "b")

    async with asyncio.timeout(BOUND):
        await output.during(work())
    assert await read(reading.fileno(), 2) == b"b\n"


async def test_that_a_socket_was_closed_in_the_middle_of_a_line_is_noticed(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    reading, writing = sockets
    output = Output(writing.fileno())

    async def stop_reading() -> None:
        await read(reading.fileno(), 1)
        reading.close()  # with much unread, which resets it

    with pytest.raises(NobodyReads):
        await asyncio.gather(output.during(output.put(b"x" * (1 << 20), None)), stop_reading())


async def test_a_terminal_that_does_not_wait_is_waited_for() -> None:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(theirs, False)
    line = b"x" * (1 << 18)
    try:
        output = Output(theirs)
        got, _ = await asyncio.gather(read(ours, len(line)), output.during(output.put(line, "end")))
    finally:
        os.close(ours)
        os.close(theirs)
    assert got == line
    assert output.mark == "end"

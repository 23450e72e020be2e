"""Run the commands of example 5 from a terminal, with their input, output and exit status.

    python examples/remote.py              lists the commands
    python examples/remote.py ask          runs one, with what you type as its input
    python examples/remote.py wc <FILE     runs one with a file or a pipe as its input

Ctrl-D ends the input. Ctrl-C cancels the command, and a second one leaves at once. A lost connection is restored, and
no output is lost or repeated. The exit status is the command's, or 128 + N if signal N ended it, or 255 if the session
failed.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

import httpx

from tailrace.client import (
    AsyncPackets,
    ClientError,
    Loss,
    PacketClient,
    PacketType,
    Retry,
    SessionEnded,
    SocketPacket,
    StreamRefused,
)

BLOCK = 1 << 15  # the most bytes of input in one packet, where JSON may need six characters for each
OUTPUTS = {"STDOUT": 1, "STDERR": 2}
FAILED = 255


class Connection:
    """Tells the user what becomes of the connection, and each thing once."""

    def __init__(self) -> None:
        self.is_made = False
        self._told = ""

    def lose(self, attempt: int, delay: float, loss: Loss) -> None:
        """Tell why there is no connection. This is the client's `on_reconnect`."""
        if loss.reason != self._told:
            tell(f"{loss.reason}; {'reconnecting' if self.is_made else 'trying again'} in {delay:.1f} s")
            self._told = loss.reason

    def show(self) -> None:
        """Note that there is a connection, because something has arrived."""
        if self._told:
            tell("connected again" if self.is_made else "connected")
        self.is_made, self._told = True, ""


async def run(client: PacketClient, command: str, connection: Connection) -> int:
    """Run a command and return the exit status."""
    failed: int | None = None
    async with client.open(SocketPacket(packet_type=PacketType.REQUEST, payload=command)) as session:
        connection.show()
        taken = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(send_input(session, taken)), tasks.create_task(cancel_at_interrupt(session))]
            try:
                await show_output(session, taken, connection)
            except OSError as error:
                failed = give_up_output(error)
                await session.end()
            for task in beside:
                task.cancel()
    if failed is not None:
        return failed
    assert session.result is not None  # otherwise, the iteration has raised an error
    return exit_status(session.result.payload)


def give_up_output(error: OSError) -> int:
    """Return the exit status for output that cannot be written, and tell why unless its reader has left."""
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    tell(f"the output cannot be written: {error.strerror}")
    return FAILED


async def show_output(session: AsyncPackets, taken: asyncio.Event, connection: Connection) -> None:
    """Write the output as it arrives, until the RESULT. Raise OSError if it cannot be written."""
    async for packet in session:
        connection.show()
        if packet.packet_type == "TAKEN":
            taken.set()
        elif (output := OUTPUTS.get(packet.packet_type)) is not None:
            block = packet.payload.encode() if isinstance(packet.payload, str) else packet.payload
            while block:
                # In a thread, because a full pipe would keep this program from noticing Ctrl-C.
                block = block[await asyncio.to_thread(os.write, output, block) :]


async def send_input(session: AsyncPackets, taken: asyncio.Event) -> None:
    """Send what is typed or piped in, each block when the command has taken the one before."""
    with suppress(SessionEnded):  # the command does not need it
        while block := await read_input():
            taken.clear()
            await session.send(SocketPacket(packet_type="INPUT", payload=text_or_bytes(block)))
            await taken.wait()
        await session.send(SocketPacket(packet_type="INPUT_END"))


async def read_input() -> bytes:
    """Read a line from the terminal, or what has arrived in a pipe. Empty bytes mean the end of input."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        block = b""
        with suppress(OSError):  # input that cannot be read, such as a folder, is none
            block = os.read(0, BLOCK)
        with suppress(RuntimeError):  # the loop is closed, because the command has ended
            loop.call_soon_threadsafe(arrived.put_nowait, block)

    # In a daemon thread, because a read cannot be cancelled, and must not keep this program from ending.
    threading.Thread(target=read, daemon=True).start()
    return await arrived.get()


def text_or_bytes(block: bytes) -> str | bytes:
    try:
        return block.decode()
    except UnicodeDecodeError:
        return block


async def cancel_at_interrupt(session: AsyncPackets) -> None:
    """At Ctrl-C, cancel the command. Its last output and its result still arrive."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    await interrupted.wait()
    loop.remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the second one ends this program
    tell("cancelling")
    with suppress(SessionEnded):
        await session.send(SocketPacket(packet_type="CANCEL"))


def exit_status(result: dict[str, Any]) -> int:
    if (name := result.get("signal")) is None:
        return int(result["exit_status"])
    tell(f"ended by {name}")
    return 128 + signal.Signals[name]


def explain(error: Exception, url: str, connection: Connection) -> str:
    is_unsent = isinstance(error, httpx.ConnectError) or getattr(error, "kind", None) == "unsent"
    if is_unsent and not connection.is_made:
        return f"no server at {url}; start one with `make example-5`"
    is_lost = isinstance(error, StreamRefused) and error.code == "session_not_found"
    return "the session is lost, because the server no longer has it" if is_lost else str(error)


def tell(message: str) -> None:
    print(f"remote: {message}", file=sys.stderr, flush=True)


def list_commands(url: str) -> int:
    commands = httpx.get(f"{url}/commands").raise_for_status().json()
    try:
        os.write(1, "".join(f"{name:<8}{about}\n" for name, about in commands.items()).encode())
    except OSError as error:
        return give_up_output(error)
    return 0


def fill_descriptors() -> None:
    """Open what the shell has closed, so that no connection becomes the input or output."""
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="default %(default)s")
    parser.add_argument("command", nargs="?")
    options = parser.parse_args()
    fill_descriptors()
    url, connection = options.url.rstrip("/"), Connection()
    try:
        client = PacketClient(f"{url}/stream", retry=Retry(cap=2.0), on_reconnect=connection.lose)
    except ValueError as error:
        tell(str(error))
        return FAILED
    status = FAILED
    try:
        return asyncio.run(run(client, options.command, connection)) if options.command else list_commands(url)
    except* (ClientError, httpx.HTTPError) as errors:
        tell(explain(errors.exceptions[0], url, connection))
    except* KeyboardInterrupt:
        status = 128 + signal.SIGINT
    return status


if __name__ == "__main__":
    sys.exit(main())

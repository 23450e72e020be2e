"""Run the commands of example 5 from a terminal, with their input, output and exit status.

    python examples/remote.py              lists the commands
    python examples/remote.py ask          runs one, with what you type as its input
    python examples/remote.py wc <FILE     runs one with a file or a pipe as its input

Ctrl-D ends the input. Ctrl-C cancels the command, and a second one leaves at once. A lost connection is made again, and
nothing of the output is lost or repeated. The exit status is the command's, or 128 + N if signal N has ended it, or 255
if the session failed.
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


async def run(url: str, command: str) -> int:
    """Run a command and return the exit status."""
    client = PacketClient(f"{url}/stream", retry=Retry(cap=2.0), on_reconnect=tell_reconnect)
    async with client.open(SocketPacket(packet_type=PacketType.REQUEST, payload=command)) as session:
        taken = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(send_input(session, taken)), tasks.create_task(cancel_at_interrupt(session))]
            try:
                await show_output(session, taken)
            except BrokenPipeError:
                await session.end()
            for task in beside:
                task.cancel()
    return 128 + signal.SIGPIPE if session.result is None else exit_status(session.result.payload)


async def show_output(session: AsyncPackets, taken: asyncio.Event) -> None:
    """Write the output as it arrives, until the RESULT."""
    async for packet in session:
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
    """Read a line from the terminal, or what a pipe has. Nothing means the end of input."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
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


def explain(error: Exception) -> str:
    is_lost = isinstance(error, StreamRefused) and error.code == "session_not_found"
    return "the session is lost, because the server no longer has it" if is_lost else str(error)


def tell_reconnect(attempt: int, delay: float, loss: Loss) -> None:
    tell(f"{loss}; reconnecting in {delay:.1f} s")


def tell(message: str) -> None:
    print(f"remote: {message}", file=sys.stderr, flush=True)


def list_commands(url: str) -> int:
    commands = httpx.get(f"{url}/commands").raise_for_status().json()
    for name, about in commands.items():
        print(f"{name:<8}{about}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="default %(default)s")
    parser.add_argument("command", nargs="?")
    options = parser.parse_args()
    status = FAILED
    try:
        return asyncio.run(run(options.url, options.command)) if options.command else list_commands(options.url)
    except* (ClientError, httpx.HTTPError) as errors:
        tell(explain(errors.exceptions[0]))
    except* KeyboardInterrupt:
        status = 128 + signal.SIGINT
    return status


if __name__ == "__main__":
    sys.exit(main())

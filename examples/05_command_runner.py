"""A remote command runner: commands with their input, output and exit status as packets.

A session begins with a REQUEST, here for a command out of a fixed list. It ends with a RESULT:

    $ stream=http://127.0.0.1:8000/stream json="Content-Type: application/json"
    $ curl -sN $stream -H "$json" -d '{"packet_type": "REQUEST", "payload": "fail"}'
    {"packet_type":"STDERR","payload":"no paper left\\n","cursor":"fiO2FVN-n57fteZlFAKREg.0.1"}
    {"packet_type":"RESULT","payload":{"exit_status":3},"cursor":"fiO2FVN-n57fteZlFAKREg.0.2.end"}

`ask` waits for a name. This client leaves after two seconds, but the session waits for its return:

    $ run() { curl -sNo /dev/null -m 2 -w "%header{content-location}" $stream -H "$json" -d "$1" || true; }
    $ session=http://127.0.0.1:8000$(run '{"packet_type": "REQUEST", "payload": "ask"}')

Further packets are sent to the address of the session. A GET there reads the session, here from its beginning:

    $ curl -s $session -H "$json" -d '{"packet_type": "INPUT", "payload": "Ada\\n"}'
    {"accepted":1}
    $ curl -sN $session
    {"packet_type":"STDOUT","payload":"What is your name? ","cursor":"QYe1vvXofIwQtoNRGWmDlQ.0.1"}
    {"packet_type":"STDOUT","payload":"Hello, Ada!\\n","cursor":"QYe1vvXofIwQtoNRGWmDlQ.0.2"}
    {"packet_type":"RESULT","payload":{"exit_status":0},"cursor":"QYe1vvXofIwQtoNRGWmDlQ.0.3.end"}

A packet of the type CANCEL ends the command, and the RESULT names the signal. A DELETE ends the whole session:

    $ session=http://127.0.0.1:8000$(run '{"packet_type": "REQUEST", "payload": "count"}')
    $ curl -s -X DELETE $session
    {"session_id":"Z2KJOGDKbNnxGEuSw_frGA","state":"cancelled","code":"stopped","message":"the stream was stopped"}

`python examples/remote.py` runs the commands from a terminal. Clients choose a name from the list and nothing else: no
argument, no path, and no shell. Keep it on the loopback all the same, because anybody who can reach it may use it.
"""

import asyncio
import codecs
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, NamedTuple, TypeAlias

from fastapi import Depends, FastAPI

from tailrace import Engine, Flow, StreamError
from tailrace.packets import ClientSession, PacketLimits, PacketType, SocketPacket, packets_router

PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL
BLOCK = 1 << 14  # the most bytes of output in one packet
INPUTS = 16  # the most packets of input that a command has yet to take


class Command(NamedTuple):
    about: str
    argv: list[str]


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-c", program]


ASK = "print(f'Hello, {input(\"What is your name? \")}!')"
COUNT = "import time\nfor number in range(1, 11):\n    print(number, flush=True)\n    time.sleep(1)"
FAIL = "import sys\nprint('no paper left', file=sys.stderr)\nsys.exit(3)"

COMMANDS = {
    "ask": Command("ask for your name and greet you", python(ASK)),
    "cat": Command("repeat the input", ["cat"]),
    "count": Command("count to ten, one number per second", python(COUNT)),
    "disk": Command("show how full the disk is", ["df", "-h", "/"]),
    "fail": Command("complain and exit with status 3", python(FAIL)),
    "wc": Command("count the lines, words and bytes of the input", ["wc"]),
    "yes": Command("print y until you cancel it", ["yes"]),
}
# Commands do not get the server's environment, which may hold secrets.
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}


def get_commands() -> dict[str, Command]:
    """Give the commands that clients may run. Override this dependency to offer others."""
    return COMMANDS


Commands: TypeAlias = Annotated[dict[str, Command], Depends(get_commands)]
Packet: TypeAlias = SocketPacket[str | bytes | None]


class Hooks:
    """The hooks of one session. They share this object, because FastAPI solves a dependency once for each request."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.run: Run | None = None

    async def handle(self, session: ClientSession, packet: Packet) -> None:
        if self.run is None:
            self.run = Run(session, await self.start(packet))
        else:
            await self.run.handle(packet)

    async def start(self, packet: Packet) -> Process:
        command = self.commands.get(str(packet.payload))
        if packet.packet_type != PacketType.REQUEST or command is None:
            expected, got = ", ".join(self.commands), f"{packet.packet_type} {packet.payload!r:.80}"
            raise StreamError(f"expected a REQUEST for one of {expected}, but got {got}", code="unknown_command")
        # In a process group of its own, so that signals also reach what the command itself has started.
        return await asyncio.create_subprocess_exec(
            *command.argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT, cwd="/", start_new_session=True
        )

    async def end(self, session: ClientSession) -> None:
        """End the command with its session, however that ends: by a RESULT, without a client, or with the server."""
        if self.run is not None:
            await self.run.end()


Hook: TypeAlias = Callable[..., Awaitable[None]]


def on_packet(hooks: Annotated[Hooks, Depends()]) -> Hook:
    return hooks.handle


def on_disconnect(hooks: Annotated[Hooks, Depends()]) -> Hook:
    return hooks.end


class Run:
    """A command that runs for a session."""

    def __init__(self, session: ClientSession, process: Process) -> None:
        self.session = session
        self.process = process
        self.input: asyncio.Queue[Packet] = asyncio.Queue(INPUTS)
        # The session cancels this task and waits for it, before it calls the disconnect hook.
        self.task = session.create_task(self.run())

    async def handle(self, packet: Packet) -> None:
        match packet.packet_type:
            case "INPUT" | "INPUT_END":
                self.put(packet)
            case "CANCEL":
                await self.cancel()
            case other:
                raise StreamError(f"expected INPUT, INPUT_END or CANCEL, but got {other}", code="unexpected_packet")

    def put(self, packet: Packet) -> None:
        """Keep input for the command. The read hook must not wait for room, because a CANCEL would wait behind it."""
        try:
            self.input.put_nowait(packet)
        except asyncio.QueueFull:
            message = "expected a client that waits for TAKEN before it sends more input"
            raise StreamError(message, code="too_much_input") from None

    async def run(self) -> None:
        """Follow the command to its end. Then send the RESULT, which ends the session."""
        status = await self.carry()
        result = {"exit_status": status} if status >= 0 else {"signal": signal.Signals(-status).name}
        await self.session.send(SocketPacket(packet_type=PacketType.RESULT, payload=result))

    async def carry(self) -> int:
        """Carry input and output, and return the exit status, which is negative after a signal."""
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self.feed(self.process.stdin))
            telling = tasks.create_task(self.tell("STDERR", self.process.stderr))
            await self.tell("STDOUT", self.process.stdout)
            await telling
            feeding.cancel()
        return await self.process.wait()

    async def feed(self, stdin: StreamWriter | None) -> None:
        """Write input to the command, and answer each packet that has an id when the command has taken it."""
        assert stdin is not None
        while True:
            packet = await self.input.get()
            if packet.packet_type == "INPUT_END":
                stdin.close()
            elif (data := packet.payload) and not stdin.is_closing():
                stdin.write(data.encode() if isinstance(data, str) else data)
                with suppress(ConnectionError):  # the command reads no more
                    await stdin.drain()
            if packet.id is not None:
                await self.session.send(packet.reply(packet_type="TAKEN"))

    async def tell(self, packet_type: str, output: StreamReader | None) -> None:
        """Send output as it comes. While the client is behind, `send` waits, the pipe fills, and the command waits."""
        assert output is not None
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            block = await output.read(BLOCK)
            if payload := decode(decoder, block):
                await self.session.send(SocketPacket(packet_type=packet_type, payload=payload))
            if not block:
                return

    async def cancel(self) -> None:
        """Terminate the command, or kill it if it does not end soon. Its last output and the RESULT follow."""
        self.signal(signal.SIGTERM)
        await asyncio.wait([self.task], timeout=PATIENCE)
        self.signal(signal.SIGKILL)

    async def end(self) -> None:
        """Kill the command if it still runs, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        # On Python 3.11, `wait` would not return before somebody has read the rest of the output.
        await self.process.communicate()

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.process.pid, number)


def decode(decoder: codecs.IncrementalDecoder, block: bytes) -> str | bytes:
    """Decode a block of output, or its end if the block is empty. Return bytes that are not UTF-8 as they are.

    A character that is not complete yet waits in the decoder for the next block.
    """
    pending, _ = decoder.getstate()
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        decoder.reset()
        return pending + block


def list_commands(commands: Commands) -> dict[str, str]:
    return {name: command.about for name, command in commands.items()}


def make_app(grace: float) -> FastAPI:
    """Make the application. Without its client or after a SIGTERM, a command goes on for `grace` seconds."""
    app = FastAPI(title="Command runner")
    app.get("/commands")(list_commands)
    packets = packets_router(
        on_packet=on_packet,
        on_disconnect=on_disconnect,
        packet=Packet,
        packet_types=["STDOUT", "STDERR", "INPUT", "INPUT_END", "TAKEN", "CANCEL"],
        limits=PacketLimits(sessions=8),  # so at most 8 commands run at once
        flow=Flow.block(high=64),  # and each has at most 64 packets that its client has yet to read
        grace=grace,
        engine=Engine(shutdown_grace=grace),
    )
    app.include_router(packets)
    return app


if __name__ == "__main__":
    from tailrace.examples.serving import run

    run(make_app, grace=10.0)

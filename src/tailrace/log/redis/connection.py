"""One connection to a Redis server: commands go out in order, and each reply goes to its command.

The asyncio client of redis-py connects again without telling its caller, repeats commands that may have run, and needs
a connection for each command in flight. This protocol does none of that.

The failures of a command:

Unreachable     the connection is gone (also a ConnectionError)
├── NotSent     no part of the command left this process: it may be repeated
└── Lost        the command may have run
Refused         the server answered with an error
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from hiredis import ProtocolError, PushNotification, Reader, pack_command

from .address import Address, Part

R = TypeVar("R", bound="Reply")

OnPush = Callable[[list[Any]], object]
"""A function to call with each push, such as `[b"message", channel, data]`. It must only file the push: the server cuts
off a subscriber that reads too slowly."""

NOTHING = object()
"""The value that hiredis returns while the next reply is incomplete."""

FED = 16 << 10
"""The most bytes to parse at once. hiredis moves all that it has been fed after each KB of replies: 256 KB of small
messages took twice as long as the same in pieces."""

_PERMISSION = 'the ACL user lacks a permission of those under "What Redis needs" in docs/deploy.md'
_ADVICE = {
    "NOAUTH": "Redis wants a password, but the URL has none, as in redis://:password@host",
    "WRONGPASS": "Redis refuses the user or the password of the URL, as in redis://user:password@host",
    "NOPERM": _PERMISSION,
}
_IN_SCRIPT = "ser executing the script can't ", "ACL failure in script"
"""Words of an ERR that Redis answers, rather than NOPERM, if a script does what the user may not do."""

CHECKS = 8
"""How many times within `Limits.silence` a connection checks that bytes come or go."""


class Unreachable(ConnectionError):
    """A command without a reply, because the connection is gone."""


class NotSent(Unreachable):
    """A command of which no part left this process. It may be repeated."""


class Lost(Unreachable):
    """A command whose connection ended before the reply came. It may have run."""


class Refused(Exception):
    """An error that the server answered. `code` is its first word, such as NOSCRIPT, MOVED, OOM, READONLY or NOPERM.

    As `str`, it begins with advice for an operator, if there is any, and ends with the server's own words. `about` is
    what the command was about, if those do not say so.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = message.partition(" ")[0]
        self.about = ""

    def __str__(self) -> str:
        in_script = any(words in self.message for words in _IN_SCRIPT)
        advice = _PERMISSION if in_script else _ADVICE.get(self.code, "")
        return ": ".join(filter(None, (self.about, advice, self.message)))


@dataclass(frozen=True, slots=True)
class Limits:
    """The time and memory that a connection may take.

    - `connect`: the seconds until a server has accepted a connection, with TLS and authentication.
    - `silence`: the seconds in which no byte comes or goes while commands wait for a reply. After them the connection
      is dropped. A reply of 50 MB may take longer, so that bytes count and not replies.
    - `unsent`: the bytes of commands that wait for the socket. A command beyond them is NotSent.
    - `reply`: the bytes of one reply or push. The connection is dropped when more come. It is more than `unsent`, so
      that whatever can be written can be read.
    """

    connect: float = 5.0
    silence: float = 2.0
    unsent: int = 64 << 20
    reply: int = 128 << 20


LIMITS = Limits()


class Reply(Protocol):
    """The receiver of a command's reply, such as a future. It is called in the callback that reads the reply."""

    def done(self) -> bool:
        """Return True if nobody waits for the reply any more."""

    def set_result(self, result: Any, /) -> None:
        """Take the reply."""

    def set_exception(self, error: Any, /) -> None:
        """Take the error: Refused, Lost or NotSent."""


def template(*parts: Part, more: int) -> bytes:
    """Pack the first parts of a command, as a format for the last ones: `% (len(part), part, …)` adds them.

    Measured: hiredis takes six times as long to pack all of a call of a script.
    """
    packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of one part
    _, first = packed.split(b"\r\n", 1)
    return b"*%d\r\n" % (len(parts) + more) + first.replace(b"%", b"%%") + b"$%d\r\n%s\r\n" * more


class Confirmation(asyncio.Future[None]):
    """Waits until the server has confirmed that it subscribed channels, or unsubscribed them.

    The server confirms by one push a channel, but refuses by one plain reply. Without a place in the queue for that
    reply, each later reply would go to the wrong command.
    """

    def __init__(self, kind: bytes, channels: Collection[bytes], *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._kind = kind
        self._missing = set(channels)

    def count(self, push: list[Any]) -> bool:
        """Return True if a push confirms one of the channels."""
        if push[0] != self._kind or push[1] not in self._missing:
            return False
        self._missing.remove(push[1])
        return True

    def __str__(self) -> str:
        return f"channel {min(self._missing).decode(errors='replace')}" + (", …" if len(self._missing) > 1 else "")

    @property
    def complete(self) -> bool:
        return not self._missing


class Connection(asyncio.Protocol):
    """A connection that is made once, and not again. `connect` makes it.

    The first command of a turn of the event loop leaves at once, and those that follow leave in one write: a wait for
    the turn's end would take an eighth of the time of a lone command. A command whose future is cancelled is still
    sent, and its reply is skipped.
    """

    _transport: asyncio.Transport

    def __init__(self, on_push: OnPush, limits: Limits) -> None:
        self._on_push = on_push
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=Refused, notEnoughData=NOTHING)
        self._incomplete = 0  # bytes of a reply that has not arrived in full
        self._waiting: deque[Reply] = deque()  # in the order of the commands, the unsent ones last
        self._out: list[bytes] = []
        self._unsent = 0
        self._gathering = False  # True from the first command of a turn on: the others leave at its end
        self._paused = False
        self._silent = 0  # checks since bytes came or went
        self._unwritten = 0  # bytes that waited for the socket at the last check
        self._checking = False
        self._end: str | None = None
        self._closed = asyncio.Event()
        self.mode = b""  # what the server says it is: standalone, sentinel or cluster

    @property
    def usable(self) -> bool:
        """False once the connection has begun to end. Commands are then NotSent."""
        return self._end is None

    def call(self, *parts: Part) -> asyncio.Future[Any]:
        """Send a command, and return a future of its reply, which may raise Refused, Lost or NotSent.

        Raise NotSent at once if the connection has ended, or more than `Limits.unsent` bytes wait already.
        """
        packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of one part
        return self.send(packed, self._loop.create_future())

    def subscribe(self, channels: Collection[bytes], *, sharded: bool = False) -> asyncio.Future[None]:
        """Subscribe channels. The future is done when the server has confirmed each. Their pushes may come earlier."""
        return self._confirmed("SSUBSCRIBE" if sharded else "SUBSCRIBE", channels)

    def unsubscribe(self, channels: Collection[bytes], *, sharded: bool = False) -> asyncio.Future[None]:
        """Unsubscribe channels. The future is done when the server has confirmed each."""
        return self._confirmed("SUNSUBSCRIBE" if sharded else "UNSUBSCRIBE", channels)

    def close(self, reason: str = "this process closed it") -> None:
        """Drop the connection at once, even if the server does not respond."""
        if self._end is None:
            self._end = reason
            self._transport.abort()

    async def wait_closed(self) -> str:
        """Wait for the end of the connection, and return the reason."""
        await self._closed.wait()
        assert self._end is not None
        return self._end

    def _confirmed(self, command: str, channels: Collection[bytes]) -> asyncio.Future[None]:
        confirmation = Confirmation(command.lower().encode(), channels, loop=self._loop)
        if not channels:  # UNSUBSCRIBE alone would mean all channels
            confirmation.set_result(None)
            return confirmation
        return self.send(pack_command((command, *channels)), confirmation)  # type: ignore[arg-type]

    def send(self, packed: bytes, reply: R) -> R:
        """Send a command that is packed already, and return what its reply will be given to. Raise as `call` does."""
        if self._end is not None:
            raise NotSent(f"expected a connection, but {self._end}")
        unsent = self._unsent + len(packed)
        if self._paused:  # otherwise the transport has at most some 64 KiB left to write
            unsent += self._transport.get_write_buffer_size()
        if unsent > self._limits.unsent:
            raise NotSent(f"expected at most {self._limits.unsent} unsent bytes, but this command makes it {unsent}")
        self._out.append(packed)
        self._unsent += len(packed)
        self._waiting.append(reply)
        if not self._gathering:
            self._gathering = True
            self._loop.call_soon(self._flush_gathered)
            self._flush()
        return reply

    def _flush_gathered(self) -> None:
        self._gathering = False
        self._flush()

    def _flush(self) -> None:
        # A transport that closes drops what it is given. Kept here, it is known to be unsent.
        if self._paused or not self._out or self._transport.is_closing():
            return
        if not self._checking:
            self._check_later()
        packed = b"".join(self._out)
        self._out.clear()
        self._unsent = 0
        self._transport.write(packed)

    def _check_later(self) -> None:
        self._checking = True
        self._loop.call_later(self._limits.silence / CHECKS, self._check)

    def _check(self) -> None:
        # Checks are counted, not seconds: after the loop hung, replies that wait in the socket are read first.
        self._checking = False
        if not self._waiting:
            return
        unwritten, self._unwritten = self._unwritten, self._transport.get_write_buffer_size()
        self._silent = 0 if self._unwritten < unwritten else self._silent + 1
        if self._silent > CHECKS:
            self.close(f"nothing came within {self._limits.silence} s")
        else:
            self._check_later()

    # Calls by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses of it

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        gets, on_push = self._reader.gets, self._on_push
        self._silent = 0
        try:
            for start in range(0, len(data), FED):
                fed = min(len(data) - start, FED)
                self._reader.feed(data, start, fed)
                self._incomplete += fed
                if (reply := gets()) is NOTHING:
                    continue
                self._incomplete = 0
                while reply is not NOTHING:
                    if type(reply) is not PushNotification:
                        self._answered(reply)
                    elif self._waiting:
                        self._pushed(reply)
                    else:
                        on_push(reply)
                    reply = gets()
        except ProtocolError as error:
            self.close(f"the server broke the protocol: {error}")
        if self._incomplete > self._limits.reply:
            self.close(f"the server sent more than {self._limits.reply} bytes in one reply")

    def eof_received(self) -> None:
        self.close("the server closed it")

    def connection_lost(self, error: Exception | None) -> None:
        if self._end is None:
            self._end = f"it broke: {error!r}"
        while len(self._waiting) > len(self._out):
            _fail(self._waiting.popleft(), Lost(f"expected a reply, but {self._end}"))
        while self._waiting:
            _fail(self._waiting.popleft(), NotSent(f"expected a connection, but {self._end}"))
        self._closed.set()

    def _pushed(self, push: list[Any]) -> None:
        """Take a push while something is awaited, which it may confirm."""
        waiting = self._waiting
        if type(first := waiting[0]) is not Confirmation or not first.count(push):
            self._on_push(push)
            return
        if first.complete:
            waiting.popleft()
            if not first.done():
                first.set_result(None)

    def _answered(self, answer: Any) -> None:
        if not self._waiting:
            self.close(f"the server sent a reply without a command: {answer!r:.100}")
            return
        reply = self._waiting.popleft()
        if isinstance(answer, Refused):
            if isinstance(reply, Confirmation):
                answer.about = str(reply)
            _fail(reply, answer)
        elif not reply.done():  # one that was cancelled has kept its place until now
            reply.set_result(answer)


def _fail(reply: Reply, error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
        if isinstance(reply, asyncio.Future):
            reply.exception()  # marks it as retrieved: perhaps nobody waits any more


async def connect(address: Address, *, name: str = "", on_push: OnPush, limits: Limits) -> Connection:
    """Make a connection to a master, which knows it by a name. Raise NotSent or Refused if none can be made."""
    loop = asyncio.get_running_loop()
    expected = f"expected {address} to accept a connection" + (" with TLS" if address.tls else "")

    def protocol() -> Connection:
        return Connection(on_push, limits)

    try:
        async with asyncio.timeout(limits.connect):
            if address.path is not None:
                _, connection = await loop.create_unix_connection(protocol, address.path)
            else:
                _, connection = await loop.create_connection(protocol, address.host, address.port, ssl=address.tls)
            hello = await _greet(connection, address, name)
    except TimeoutError as error:
        raise NotSent(f"{expected} within {limits.connect} s, but it did not{_hint(address, error)}") from None
    except OSError as error:
        raise NotSent(f"{expected}, but got: {error}{_hint(address, error)}") from error
    connection.mode = hello.get(b"mode", b"")
    if hello.get(b"role") == b"replica":  # a master that was demoted, perhaps, and not yet known as such
        connection.close()
        raise NotSent(f"expected {address} to be a master, but it is a replica")
    return connection


def _hint(address: Address, error: OSError) -> str:
    """Return a question about TLS if only one side may speak it."""
    # Redis without TLS does not answer a handshake, because it waits for the end of a line. With TLS, it hangs up.
    if address.tls:
        failed = isinstance(error, TimeoutError | ConnectionResetError | ssl.SSLError)
        if failed and not isinstance(error, ssl.SSLCertVerificationError):
            return " (does it speak TLS? if not, its URL begins with redis, not rediss)"
    elif isinstance(error, Lost) and address.path is None:
        return " (does it want TLS? if so, its URL begins with rediss, not redis)"
    return ""


async def _greet(connection: Connection, address: Address, name: str) -> dict[bytes, Any]:
    """Authenticate, choose the database, and return what the server says of itself."""
    try:
        hello, *_ = await asyncio.gather(*(connection.call(*command) for command in address.greeting(name)))
        return cast(dict[bytes, Any], hello)
    except BaseException as error:  # a cancellation, too: the caller never gets the connection, so it cannot close it
        connection.close()
        if isinstance(error, Refused) and "unknown command" in error.message:
            # Not the server's own words: they repeat the command, with the password.
            raise NotSent("unknown command HELLO (is it Redis 6.2 or newer?)") from None
        raise

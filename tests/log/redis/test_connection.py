from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from tailrace.log.redis.address import Address
from tailrace.log.redis.connection import LIMITS, Connection, Limits, Lost, NotSent, OnPush, Refused, connect
from tests.client.speaking import Speak, speaking
from tests.raw import BOUND
from tests.silence import silent_loop as silent_loop

from .redis_server import RedisServer, redis_server

pytestmark = pytest.mark.usefixtures("silent_loop")

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def ignore(push: list[Any]) -> None:
    """For connections that get no pushes."""


@asynccontextmanager
async def connected(
    url: str, on_push: OnPush = ignore, limits: Limits = LIMITS, name: str = "test"
) -> AsyncIterator[Connection]:
    async with asyncio.timeout(BOUND):
        connection = await connect(Address(url), name=name, on_push=on_push, limits=limits)
        try:
            yield connection
        finally:
            connection.close()
            await connection.wait_closed()


def answering(answer: bytes, *, stay: bool = True) -> Speak:
    """Greets each connection, answers its next command with these bytes, and then stays or leaves."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")
        writer.write(b"%0\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(answer)
        await writer.drain()
        if stay:
            await reader.read()

    return speak


async def fill(connection: Connection, size: int) -> list[asyncio.Future[Any]]:
    """Send commands of so many bytes, until the connection takes no more."""
    calls: list[asyncio.Future[Any]] = []

    async def call() -> None:
        while True:
            calls.append(connection.call("SETRANGE", f"key-{len(calls)}", len(calls), bytes(size)))
            await asyncio.sleep(0)

    with pytest.raises(NotSent, match="unsent bytes, but this command makes it"):
        await call()
    return calls


# Commands and their replies


async def test_each_reply_goes_to_its_command(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        calls = [connection.call("ECHO", str(number)) for number in range(1000)]
        assert await asyncio.gather(*calls) == [str(number).encode() for number in range(1000)]


async def test_commands_of_one_turn_leave_in_one_write(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        reads = redis.ask("INFO")["total_reads_processed"]
        await asyncio.gather(*[connection.call("PING") for _ in range(1000)])
        assert redis.ask("INFO")["total_reads_processed"] - reads <= 3  # of 16 KB each, and the INFO itself


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (("ECHO", "é"), "é".encode()),
        (("ECHO", b"\x00\r\n"), b"\x00\r\n"),
        (("INCRBY", "n", 7), 7),
        (("GET", "missing"), None),
        (("HGETALL", "missing"), {}),
        (("EVAL", "redis.setresp(3); return {1, {double = 1.5}, true, false}", 0), [1, 1.5, True, False]),
    ],
)
async def test_replies_have_the_types_of_resp3(
    command: tuple[str | int, ...], reply: object, redis: RedisServer
) -> None:
    async with connected(redis.url) as connection:
        assert await connection.call(*command) == reply


async def test_a_refusal_has_a_code_and_concerns_its_command_only(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        refused, answered = connection.call("EVALSHA", "0" * 40, 0), connection.call("ECHO", "next")
        with pytest.raises(Refused, match=r"^NOSCRIPT No matching script") as caught:
            await refused
        assert caught.value.code == "NOSCRIPT"
        assert await answered == b"next"


async def test_a_refusal_that_nobody_waits_for_is_silent(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        connection.call("WRONG")
        assert await connection.call("ECHO", "next") == b"next"


async def test_a_cancelled_command_keeps_its_place(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        calls = [connection.call("ECHO", str(number)) for number in range(100)]
        wrong = connection.call("WRONG")
        wrong.cancel()
        for call in calls[::2]:
            call.cancel()
        assert await asyncio.gather(*calls[1::2]) == [str(number).encode() for number in range(1, 100, 2)]
        assert await connection.call("ECHO", "next") == b"next"


async def test_a_reply_may_come_in_many_pieces(redis: RedisServer) -> None:
    value = bytes(range(256)) * 40_000
    async with connected(redis.url) as connection:
        set_, got, next_ = connection.call("SET", "x", value), connection.call("GET", "x"), connection.call("PING")
        assert [await set_, await got, await next_] == [b"OK", value, b"PONG"]


# Subscriptions


async def test_messages_are_pushed_after_the_confirmation(redis: RedisServer) -> None:
    pushes: list[list[Any]] = []
    async with connected(redis.url, pushes.append) as connection:
        await connection.subscribe([b"a", b"b", b"a"])
        for channel in ("a", "b", "c"):
            await connection.call("PUBLISH", channel, "one")
        await connection.unsubscribe([b"a"])
        assert await connection.call("PUBLISH", "a", "two") == 0
        assert await connection.call("PUBLISH", "b", "two") == 1
    messages = [push for push in pushes if push[0] == b"message"]
    assert messages == [[b"message", b"a", b"one"], [b"message", b"b", b"one"], [b"message", b"b", b"two"]]


async def test_a_message_may_come_before_a_confirmation(redis: RedisServer) -> None:
    pushes: list[list[Any]] = []
    async with connected(redis.url, pushes.append) as connection:
        await connection.subscribe([b"a"])
        confirmed, echo = connection.subscribe([b"b", b"c"]), connection.call("ECHO", "next")
        redis.ask("PUBLISH", "a", "x")  # while both are unsent
        await confirmed
        assert await echo == b"next"
    assert pushes == [[b"message", b"a", b"x"]]


async def test_no_channels_need_no_confirmation(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        await connection.subscribe([b"a"])
        await connection.subscribe([])
        await connection.unsubscribe([])
        assert await connection.call("PUBLISH", "a", "x") == 1


async def test_a_refused_subscription_has_a_place_among_the_replies(own_redis: RedisServer) -> None:
    own_redis.ask("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "resetchannels", "&mine")
    url = own_redis.url.replace("//", "//narrow:pw@")
    async with connected(url) as connection:
        refused, echo = connection.subscribe([b"mine", b"other"]), connection.call("ECHO", "next")
        with pytest.raises(Refused) as caught:
            await refused
        assert caught.value.code == "NOPERM"
        assert str(caught.value).startswith("channel mine, …: the ACL user lacks a permission")
        assert await echo == b"next"
        with pytest.raises(Refused, match=r"^channel other: the ACL user lacks a permission"):
            await connection.subscribe([b"other"])
        await connection.subscribe([b"mine"])


async def test_a_cancelled_subscription_keeps_its_place(redis: RedisServer) -> None:
    pushes: list[list[Any]] = []
    async with connected(redis.url, pushes.append) as connection:
        connection.subscribe([b"a", b"b"]).cancel()
        assert await connection.call("ECHO", "next") == b"next"
        assert await connection.call("PUBLISH", "b", "x") == 1
    assert pushes == [[b"message", b"b", b"x"]]


async def test_an_exception_of_the_callback_ends_the_connection_and_is_reported(redis: RedisServer) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(push: list[Any]) -> None:
        raise LookupError("a fault of the callback")

    async with connected(redis.url, fail) as connection:
        await connection.subscribe([b"a"])
        redis.ask("PUBLISH", "a", "x")
        assert await connection.wait_closed() == "it broke: LookupError('a fault of the callback')"
    assert [str(context["exception"]) for context in reported] == ["a fault of the callback"]


# The end of a connection


async def test_a_command_without_its_reply_is_lost_and_a_later_one_not_sent(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        call, subscribed = connection.call("BLPOP", "nothing", 0), connection.subscribe([b"a"])
        await asyncio.sleep(0)
        redis.kill_clients("test")
        for future in (call, subscribed):
            with pytest.raises(Lost, match=r"^expected a reply, but the server closed it$"):
                await future
        assert not connection.usable
        with pytest.raises(NotSent, match=r"^expected a connection, but the server closed it$"):
            connection.call("PING")
        assert await connection.wait_closed() == "the server closed it"


async def test_a_command_of_the_turn_in_which_the_connection_ends_is_not_sent(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        lost = connection.call("BLPOP", "nothing", 0)
        unsent = connection.call("SET", "x", 1)  # the first one of a turn leaves at once
        connection.close("enough")
        connection.close("a second reason")
        with pytest.raises(Lost, match=r"^expected a reply, but enough$"):
            await lost
        with pytest.raises(NotSent, match=r"^expected a connection, but enough$"):
            await unsent
    assert redis.ask("GET", "x") is None


async def test_a_loss_that_nobody_waits_for_is_silent(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        connection.call("BLPOP", "nothing", 0)
        await asyncio.sleep(0)
        connection.call("PING")
        connection.call("PING").cancel()


async def test_a_reset_connection_says_so(own_redis: RedisServer) -> None:
    async with connected(own_redis.url) as connection:
        own_redis.freeze()
        call = connection.call("ECHO", bytes(1000))
        await asyncio.sleep(0)
        own_redis.kill()  # with unread bytes, so that the system resets the connection
        with pytest.raises(Lost, match="expected a reply, but it broke: ConnectionResetError"):
            await call


@pytest.mark.parametrize(
    ("answer", "stay", "reason"),
    [
        (b"$5\r\nPO", False, "the server closed it"),
        (b"hello\r\n", True, 'the server broke the protocol: Protocol error, got "h" as reply type byte'),
        (b":1\r\n:2\r\n", True, "the server sent a reply without a command: 2"),
    ],
)
async def test_a_connection_ends_with_the_protocol(answer: bytes, stay: bool, reason: str) -> None:
    async with speaking(answering(answer, stay=stay)) as place, connected(f"redis{place}", name="") as connection:
        call = connection.call("PING")
        assert await connection.wait_closed() == reason
        if answer.startswith(b":"):
            assert await call == 1
        else:
            with pytest.raises(Lost):
                await call


# Limits


async def test_a_frozen_server_is_given_up_after_the_silence(own_redis: RedisServer) -> None:
    async with connected(own_redis.url, limits=Limits(silence=0.2)) as connection:
        with own_redis.frozen():
            start = time.monotonic()
            with pytest.raises(Lost, match=r"^expected a reply, but nothing came within 0\.2 s$"):
                await connection.call("PING")
            assert time.monotonic() - start >= 0.2


async def test_silence_is_allowed_while_nothing_waits(own_redis: RedisServer) -> None:
    async with connected(own_redis.url, limits=Limits(silence=0.05)) as connection:
        await connection.call("PING")
        with own_redis.frozen():
            await asyncio.sleep(0.15)
        assert await connection.call("PING") == b"PONG"


@pytest.mark.parametrize("reply", [b"+PONG\r\n", b">3\r\n$9\r\nsubscribe\r\n$1\r\n%d\r\n:1\r\n"])
async def test_a_slow_server_is_not_given_up_while_replies_come(reply: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")
        writer.write(b"%0\r\n")
        await reader.readuntil(b"\r\n")
        for number in range(5):
            await asyncio.sleep(0.08)
            writer.write(reply.replace(b"%d", b"%d" % number))
        await reader.read()

    async with (
        speaking(speak) as place,
        connected(f"redis{place}", limits=Limits(silence=0.24), name="") as connection,
    ):
        if reply.startswith(b">"):
            await connection.subscribe([b"0", b"1", b"2", b"3", b"4"])
        else:
            assert await asyncio.gather(*[connection.call("PING") for _ in range(5)]) == [b"PONG"] * 5


async def test_a_reply_may_take_longer_than_the_silence() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")
        writer.write(b"%0\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(b"$5\r\n")
        for _ in range(5):
            await asyncio.sleep(0.08)
            writer.write(b"x")
        writer.write(b"\r\n")
        await reader.read()

    async with speaking(speak) as place, connected(f"redis{place}", limits=Limits(silence=0.24), name="") as connection:
        assert await connection.call("PING") == b"xxxxx"


async def test_a_command_may_take_longer_than_the_silence() -> None:
    size = 16 << 20

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")
        writer.write(b"%0\r\n")
        left = size
        while left > 0 and (data := await reader.read(size)):
            left -= len(data)
            if left > size // 2:  # nobody sees how the system's buffers empty, so be quick at the end
                await asyncio.sleep(0.01)
        writer.write(b"+OK\r\n")
        await reader.read()

    async with speaking(speak) as place, connected(f"redis{place}", limits=Limits(silence=0.32), name="") as connection:
        assert await connection.call("ECHO", b"x" * size) == b"OK"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_loop_that_stands_still_blames_no_server(
    new_loop: Callable[[], asyncio.AbstractEventLoop], sent: bool, redis: RedisServer
) -> None:
    async def run() -> None:
        async with connected(redis.url, limits=Limits(silence=0.05)) as connection:
            call = connection.call("ECHO", "here")
            if sent:
                await asyncio.sleep(0)
            time.sleep(0.2)
            assert await call == b"here"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("scheme", ["redis", "unix", "rediss"])
def test_unsent_bytes_are_bounded_and_leave_in_order(
    new_loop: Callable[[], asyncio.AbstractEventLoop], scheme: str
) -> None:
    async def run(server: RedisServer) -> None:
        url = server.unix_url if scheme == "unix" else server.url
        async with connected(url, limits=Limits(unsent=500_000)) as connection:
            with server.frozen():
                calls = await fill(connection, 50_000)
            assert await asyncio.gather(*calls) == [50_000 + number for number in range(len(calls))]
            assert await connection.call("PING") == b"PONG"

    with redis_server(tls=scheme == "rediss") as server, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run(server))


async def test_what_the_socket_never_took_is_not_sent(own_redis: RedisServer) -> None:
    async with connected(own_redis.url, limits=Limits(unsent=500_000)) as connection:
        with own_redis.frozen():
            calls = await fill(connection, 50_000)
            held = connection._transport.get_write_buffer_size()
            connection.close()
            ends = await asyncio.gather(*calls, return_exceptions=True)
        lost = sum(isinstance(end, Lost) for end in ends)
        assert 0 < lost < len(ends)
        assert all(isinstance(end, NotSent) for end in ends[lost:])
        assert held + 50_000 * (len(ends) - lost) <= 500_000


async def test_a_command_above_the_bound_is_not_sent(redis: RedisServer) -> None:
    async with connected(redis.url, limits=Limits(unsent=1000)) as connection:
        with pytest.raises(NotSent, match=r"^expected at most 1000 unsent bytes, but this command makes it 1023$"):
            connection.call("ECHO", bytes(1000))
        assert await connection.call("PING") == b"PONG"


async def test_a_reply_above_the_bound_ends_the_connection(redis: RedisServer) -> None:
    redis.ask("SET", "small", bytes(60_000))
    redis.ask("SET", "large", bytes(1_000_000))
    async with connected(redis.url, limits=Limits(reply=100_000)) as connection:
        assert await asyncio.gather(*[connection.call("GET", "small") for _ in range(20)]) == [bytes(60_000)] * 20
        with pytest.raises(Lost, match="the server sent more than 100000 bytes in one reply"):
            await connection.call("GET", "large")


# Connecting


async def test_the_server_knows_user_database_and_name(own_redis: RedisServer) -> None:
    own_redis.ask("ACL", "SETUSER", "me", "on", ">p@ss", "~*", "&*", "+@all")
    for url in (
        f"redis://me:p%40ss@127.0.0.1:{own_redis.port}/2",
        f"{own_redis.unix_url}?db=2&username=me&password=p@ss",
    ):
        async with connected(url, name="test") as connection:
            assert await connection.call("ACL", "WHOAMI") == b"me"
            [client] = own_redis.clients()
            assert (client["name"], client["db"], client["resp"]) == ("test", "2", "3")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "redis://:wrong@127.0.0.1:{port}",
            "Redis refuses the user or the password of the URL, as in redis://user:password@host: WRONGPASS invalid",
        ),
        (
            "redis://127.0.0.1:{port}",
            "Redis wants a password, but the URL has none, as in redis://:password@host: NOAUTH HELLO must be called",
        ),
        ("redis://:right@127.0.0.1:{port}/99", "ERR DB index is out of range"),
    ],
)
async def test_a_server_may_refuse_a_connection(url: str, told: str, own_redis: RedisServer) -> None:
    own_redis.ask("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(Refused) as caught:
        async with connected(url.format(port=own_redis.port)):
            pass
    assert str(caught.value).startswith(told)
    assert f"{caught.value.code} " in told


async def test_a_server_that_repeats_the_greeting_is_not_quoted() -> None:
    told = pytest.raises(NotSent, match=r"but got: unknown command HELLO \(is it Redis 6\.2 or newer\?\)$")
    with redis_server("--rename-command", "HELLO", "") as server, told:
        async with connected(server.url.replace("//", "//:secret@")):
            pass


NOT_IN_SCRIPT = "ERR The user executing the script can't|ERR ACL failure in script"
"""The wording of Redis up to 7.0, and the later one."""


@pytest.mark.parametrize(
    ("rights", "command", "text"),
    [
        ("-set", ("SET", "x", 1), "NOPERM .* no permissions to run the 'set' command"),
        ("resetkeys", ("SET", "x", 1), "NOPERM .* to access"),
        ("resetchannels", ("EVAL", "return redis.call('PUBLISH', 'a', 'x')", 0), NOT_IN_SCRIPT),
        ("-set", ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "x"), NOT_IN_SCRIPT),
    ],
)
async def test_a_refused_user_is_told_where_its_rights_are_listed(
    rights: str, command: tuple[str, ...], text: str, own_redis: RedisServer
) -> None:
    own_redis.ask("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "&*", "+@all", rights)
    advice = 'the ACL user lacks a permission of those under "What Redis needs" in docs/deploy.md'
    async with connected(own_redis.url.replace("//", "//narrow:pw@")) as connection:
        with pytest.raises(Refused, match=f"^{advice}: ({text})"):
            await connection.call(*command)


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotSent, match=f"^expected 127.0.0.1:{port} to accept a connection, but got: .*refused|failed"):
        async with connected(f"redis://127.0.0.1:{port}"):
            pass
    with pytest.raises(NotSent, match=r"^expected /nowhere to accept a connection, but got: .*No such file"):
        async with connected("unix:///nowhere"):
            pass


@pytest.mark.parametrize("tls", [False, True])
async def test_connecting_to_a_frozen_server_has_a_deadline(tls: bool) -> None:
    speaks = (
        r" with TLS within 0\.1 s, but it did not \(does it speak TLS\?" if tls else r" within 0\.1 s, but it did not$"
    )
    late = pytest.raises(NotSent, match=f"to accept a connection{speaks}")
    with redis_server(tls=tls) as server, server.frozen(), late:
        async with connected(server.url, limits=Limits(connect=0.1)):
            pass


@pytest.mark.parametrize("tls", [False, True])
async def test_connecting_can_be_cancelled(tls: bool) -> None:
    with redis_server(tls=tls) as server, server.frozen():
        task = asyncio.create_task(connect(Address(server.url), on_push=ignore, limits=LIMITS))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_server_that_leaves_during_the_greeting_accepts_no_connection() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")

    async with speaking(speak) as place:
        with pytest.raises(
            NotSent, match="to accept a connection, but got: expected a reply, but the server closed it"
        ):
            async with connected(f"redis{place}"):
                pass


async def test_tls_carries_commands_and_pushes() -> None:
    pushes: list[list[Any]] = []
    with redis_server(tls=True) as server:
        async with connected(server.url, pushes.append) as connection:
            await connection.subscribe([b"a"])
            value = bytes(2_000_000)
            assert await connection.call("PUBLISH", "a", value) == 1
            assert pushes == [[b"message", b"a", value]]
            server.kill_clients("test")
            assert await connection.wait_closed() == "the server closed it"


async def test_a_certificate_that_nobody_trusts_is_refused() -> None:
    with redis_server(tls=True) as server, pytest.raises(NotSent, match=r"certificate verify failed[^?]*$"):
        async with connected(server.url.partition("?")[0]):
            pass


async def test_a_server_without_tls_is_refused(redis: RedisServer) -> None:
    # It waits for the end of a line, unless the random bytes of the handshake have one.
    for _ in range(8):
        with pytest.raises(NotSent) as caught:
            async with connected(redis.url.replace("redis:", "rediss:"), limits=Limits(connect=0.1)):
                pass
        told = str(caught.value)
        assert "to accept a connection with TLS" in told
        assert told.endswith(" (does it speak TLS? if not, its URL begins with redis, not rediss)")


async def test_a_server_with_tls_is_refused_without() -> None:
    with redis_server(tls=True) as server:
        hint = r" \(does it want TLS\? if so, its URL begins with rediss, not redis\)$"
        with pytest.raises(
            NotSent, match=f"^expected 127.0.0.1:{server.port} to accept a connection, but got: .*{hint}"
        ):
            async with connected(f"redis://127.0.0.1:{server.port}"):
                pass

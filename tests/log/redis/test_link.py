from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from tailrace.log.redis.address import Address
from tailrace.log.redis.connection import Limits, Lost, NotSent, Refused, Unreachable
from tailrace.log.redis.link import Backoff, Link, Outage, Script
from tests.client.speaking import speaking
from tests.raw import BOUND
from tests.silence import silent_loop as silent_loop

from .redis_server import RedisServer, redis_server

pytestmark = pytest.mark.usefixtures("silent_loop")

ECHO = Script("return ARGV[1]")
SHORT = Limits(connect=0.2, silence=0.2)
QUICK = Backoff(first=0.01, longest=0.02)
LEFT = "the server closed it"


class Owner:
    """A link, and what it told its owner, who calls `greet` on each connect."""

    def __init__(self, url: str, greet: Callable[[Link], object] = lambda link: None, **options: Any) -> None:
        self.told: list[str] = []
        self.pushes: list[list[Any]] = []
        self._greet = greet
        self._news = asyncio.Event()
        told: dict[str, Any] = {"on_connect": self._connected, "on_lost": self._tell, "on_push": self.pushes.append}
        self.link = Link(Address(url), **{"name": "test", "backoff": QUICK, **told, **options})

    async def hears(self, *told: str) -> None:
        """Wait until the owner was told this, and nothing else."""
        while len(self.told) < len(told):
            self._news.clear()
            await self._news.wait()
        assert self.told == list(told)

    def _connected(self) -> None:
        self._tell("connected")
        self._greet(self.link)

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._news.set()


@asynccontextmanager
async def owned(
    url: str, greet: Callable[[Link], object] = lambda link: None, **options: Any
) -> AsyncIterator[tuple[Link, Owner]]:
    """A link that is ready."""
    owner = Owner(url, greet, **options)
    async with asyncio.timeout(BOUND):
        owner.link.open()
        try:
            await owner.link.ready(BOUND)
            yield owner.link, owner
        finally:
            await owner.link.aclose()


async def test_an_open_link_carries_commands(redis: RedisServer) -> None:
    async with owned(redis.url) as (link, owner):
        assert link.connected
        assert await link.call("PING") == b"PONG"
        assert [client["name"] for client in redis.clients()] == ["test"]
    assert owner.told == ["connected"]
    assert not link.connected
    assert redis.clients() == []


async def test_a_link_ignores_what_its_owner_does_not_ask_for(redis: RedisServer) -> None:
    link = Link(Address(redis.url), backoff=QUICK)
    link.open()
    await link.ready(BOUND)
    await link.subscribe([b"a"])
    assert await link.call("PUBLISH", "a", "x") == 1
    redis.kill_clients()
    with pytest.raises(Lost):
        await link.call("PING")
    await link.ready(BOUND)
    await link.aclose()


async def test_a_lost_connection_is_told_and_made_again(redis: RedisServer) -> None:
    async with owned(redis.url) as (link, owner):
        await link.subscribe([b"a"])
        for _ in range(3):
            call = link.call("BLPOP", "nothing", 0)
            redis.kill_clients()
            with pytest.raises(Lost):
                await call
            await link.ready(BOUND)
            assert await link.call("PUBLISH", "a", "x") == 0
    assert owner.told == ["connected", *["the server closed it", "connected"] * 3]


async def test_the_owner_subscribes_again_before_anybody_goes_on(redis: RedisServer) -> None:
    async with owned(redis.url, lambda link: link.subscribe([b"a", b"b"])) as (link, owner):
        redis.kill_clients()
        await owner.hears("connected", LEFT)
        await link.ready(BOUND)
        assert await link.call("PUBLISH", "b", "x") == 1
        await link.unsubscribe([b"b"])
        assert await link.call("PUBLISH", "b", "y") == 0
    assert owner.pushes == [[b"message", b"b", b"x"]]


async def test_an_exception_of_the_owner_is_reported_and_stops_nothing(redis: RedisServer) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    async with owned(redis.url, lambda link: [][1]) as (link, owner):
        redis.kill_clients()
        await owner.hears("connected", LEFT, "connected")
        assert await link.call("PING") == b"PONG"
    assert reported == ["list index out of range"] * 2


# Scripts


async def test_the_digest_of_a_script_is_that_of_the_server(redis: RedisServer) -> None:
    script = Script("return 'é'")
    assert redis.ask("SCRIPT", "LOAD", script.source) == script.digest


async def test_the_server_knows_the_scripts_from_the_start(redis: RedisServer) -> None:
    async with owned(redis.url, scripts=[ECHO]) as (link, _):
        assert redis.ask("SCRIPT", "EXISTS", ECHO.digest) == [True]
        assert await link.run(ECHO, ["key"], "x") == b"x"


async def test_a_forgotten_script_runs_and_is_known_again(redis: RedisServer) -> None:
    async with owned(redis.url, scripts=[ECHO]) as (link, _):
        redis.ask("SCRIPT", "FLUSH")
        assert await link.run(ECHO, ["key"], "x") == b"x"
        assert await link.call("EVALSHA", ECHO.digest, 0, "y") == b"y"


async def test_a_restarted_server_knows_the_scripts(own_redis: RedisServer) -> None:
    async with owned(own_redis.url, scripts=[ECHO]) as (link, owner):
        own_redis.restart()
        await owner.hears("connected", LEFT, "connected")
        assert await link.call("EVALSHA", ECHO.digest, 0, "x") == b"x"


async def test_the_refusal_of_a_script_is_passed_on(redis: RedisServer) -> None:
    script = Script("return redis.error_reply('FENCED by 3')")
    async with owned(redis.url, scripts=[script]) as (link, _):
        with pytest.raises(Refused) as caught:
            await link.run(script, [])
        assert (caught.value.code, str(caught.value)) == ("FENCED", "FENCED by 3")


async def test_a_script_that_cannot_be_loaded_keeps_the_link_from_being_ready(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    link = Link(Address(redis.url), scripts=[Script("no lua")], backoff=QUICK)
    link.open()
    with pytest.raises(NotSent, match=r"^expected a connection to 127.0.0.1:\d+, but got: ERR Error compiling script"):
        await link.ready(0.1)
    await link.aclose()
    assert redis.clients() == []
    [told] = [record.getMessage() for record in caplog.records]
    expected = f"cannot connect to Redis: expected a connection to {link.target}, but got: ERR Error compiling script"
    assert told.startswith(expected)


# Faults


async def test_calls_on_a_frozen_server_are_lost_and_run_once(own_redis: RedisServer) -> None:
    async with owned(own_redis.url, limits=SHORT) as (link, owner):
        with own_redis.frozen():
            start = time.monotonic()
            with pytest.raises(Lost, match="nothing came"):
                await link.call("INCR", "x")
            assert time.monotonic() - start >= 0.2
            with pytest.raises(NotSent, match=r"to accept a connection within 0\.2 s, but it did not$"):
                await link.ready(1.0)  # time for one attempt at least
        await link.ready(BOUND)
        assert await link.call("GET", "x") == b"1"
    assert owner.told == ["connected", "nothing came within 0.2 s", "connected"]


async def test_no_command_runs_twice_while_connections_are_killed(redis: RedisServer) -> None:
    counts = Counter[str]()

    async def count(link: Link) -> None:
        for _ in range(200):
            await link.ready(BOUND)
            try:
                await link.call("INCR", "x")
                counts["answered"] += 1
            except Unreachable as error:
                counts[type(error).__name__] += 1

    async with owned(redis.url) as (link, _), asyncio.TaskGroup() as group:
        counting = [group.create_task(count(link)) for _ in range(20)]
        while not all(task.done() for task in counting):
            redis.kill_clients()
            await asyncio.sleep(0.005)
    assert counts.total() == 20 * 200
    assert counts["Lost"] > 0
    assert counts["answered"] <= int(redis.ask("GET", "x")) <= counts["answered"] + counts["Lost"]


async def test_a_server_may_come_back_later(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with owned(own_redis.url) as (link, owner):
        own_redis.stop()
        await owner.hears("connected", LEFT)
        with pytest.raises(NotSent, match="to accept a connection, but got: "):
            await link.ready(0.1)
        with pytest.raises(NotSent, match=r"^expected 127\.0\.0\.1:\d+ to accept a connection"):
            link.call("PING")
        waiting = [asyncio.create_task(link.ready(BOUND)) for _ in range(3)]
        await asyncio.sleep(0)
        own_redis.start()
        await asyncio.gather(*waiting)
        assert await link.call("PING") == b"PONG"
        assert owner.told == ["connected", "the server closed it", "connected"]
    lost, failed, back = (record for record in caplog.records if record.name == "tailrace.log.redis")
    assert lost.getMessage() == f"lost the connection to Redis at {link.address}: the server closed it"
    assert failed.getMessage().startswith(f"cannot connect to Redis: expected {link.address} to accept")
    assert back.getMessage() == f"connected to Redis at {link.address}"
    assert (lost.levelno, failed.levelno, back.levelno) == (logging.WARNING, logging.WARNING, logging.INFO)


async def test_links_to_one_server_tell_of_an_outage_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage()
    async with (
        owned(own_redis.url, outage=outage) as (one, first),
        owned(own_redis.url, outage=outage) as (other, second),
    ):
        for times in (1, 2):
            caplog.clear()
            own_redis.stop()
            for link, owner in ((one, first), (other, second)):
                await owner.hears(*["connected", LEFT] * times)
                with pytest.raises(NotSent, match="to accept a connection, but got: "):
                    await link.ready(0.1)
            own_redis.start()
            await asyncio.gather(one.ready(BOUND), other.ready(BOUND))
            assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
                f"lost the connection to Redis at {one.address}",
                "cannot connect to Redis",
                f"connected to Redis at {one.address}",
            ]


async def test_the_owner_may_drop_a_connection(redis: RedisServer) -> None:
    async with owned(redis.url) as (link, owner):
        link.drop("its nonce did not come")
        assert not link.connected
        with pytest.raises(NotSent, match=r"^expected a connection, but its nonce did not come$"):
            link.call("PING")
        await link.ready(BOUND)
    link.drop("no connection to drop")
    assert owner.told == ["connected", "its nonce did not come", "connected"]


async def test_a_server_that_always_leaves_is_asked_less_and_less() -> None:
    times: list[float] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"HELLO\r\n$1\r\n3\r\n")
        writer.write(b"%0\r\n")
        times.append(time.monotonic())
        if len(times) == 5:
            enough.set()

    enough = asyncio.Event()
    async with speaking(speak) as place:
        link = Link(Address(f"redis{place}"), backoff=Backoff(first=0.02, longest=1.0))
        link.open()
        await enough.wait()
        await link.aclose()
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, [0.01, 0.02, 0.04, 0.08], strict=True))


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(0, 0, 0), (1, 0.5, 1), (2, 1, 2), (3, 2, 4), (4, 2.5, 5), (10_000, 2.5, 5)]
)
def test_a_backoff_doubles_up_to_its_bound(failures: int, least: float, most: float) -> None:
    delays = [Backoff(first=1, longest=5).delay(failures) for _ in range(100)]
    assert all(least <= delay <= most for delay in delays)
    assert len(set(delays)) == (100 if most else 1)


# Opening and closing


async def test_a_link_that_is_not_open_says_so(redis: RedisServer) -> None:
    link = Link(Address(redis.url))
    not_open = r"^expected a connection to 127\.0\.0\.1:\d+, but it is not open$"
    for send in (lambda: link.call("PING"), lambda: link.subscribe([b"a"]), lambda: link.unsubscribe([b"a"])):
        with pytest.raises(NotSent, match=not_open):
            send()
    with pytest.raises(NotSent, match=not_open):
        await link.ready(0)
    await link.aclose()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_closed_link_ends_what_waits(tls: bool) -> None:
    with redis_server(tls=tls) as server:
        link = Link(Address(server.url))
        link.open()
        await link.ready(BOUND)
        call = link.call("BLPOP", "nothing", 0)
        await asyncio.sleep(0)
        await link.aclose()
        assert call.done()
    with pytest.raises(Lost, match=r"^expected a reply, but this process closed it$"):
        await call
    for wait in (link.ready(0), link.ready(BOUND)):
        with pytest.raises(NotSent, match=r"but it is closed$"):
            await wait
    await link.aclose()


async def test_closing_a_link_ends_its_connecting(own_redis: RedisServer) -> None:
    link = Link(Address(own_redis.url))
    with own_redis.frozen():
        link.open()
        waiting = asyncio.create_task(link.ready(BOUND))
        await asyncio.sleep(0.02)
        with pytest.raises(NotSent, match=r"but it is still connecting$"):
            link.call("PING")
        await link.aclose()
        with pytest.raises(NotSent, match=r"but it is closed$"):
            await waiting

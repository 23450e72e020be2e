"""The posts of one socket, with answers that a test gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tailrace.asgi import posts as module
from tailrace.asgi.exchange import Answer
from tailrace.asgi.posts import MAX_BYTES, MAX_MESSAGES, Posts
from tests.raw import BOUND
from tests.sources import soon, turns

OK = Answer(202)
NDJSON = [(b"content-type", b"application/x-ndjson")]


def refusal(status: int, body: str) -> Answer:
    return Answer(status, NDJSON, body.encode())


class Target:
    """What answers the posts: with `judge`, and only while the gate is open."""

    def __init__(self, judge: Callable[[list[str]], Answer] = lambda lines: OK) -> None:
        self.judge = judge
        self.bodies: list[list[str]] = []
        self.keys: list[bytes] = []
        self.told: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.cancelled = False
        self.running = 0
        self.posts = Posts(self.post, self.tell)

    async def post(self, body: bytes, key: bytes) -> Answer:
        assert self.running == 0, "one request at a time"
        assert body.endswith(b"\n")
        lines = body.decode().split("\n")[:-1]
        self.bodies.append(lines)
        self.keys.append(key)
        self.arrived.set()
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.running -= 1
        return self.judge(lines)

    async def tell(self, text: str) -> None:
        self.told.append(text)

    async def put(self, *texts: str) -> None:
        for text in texts:
            await self.posts.put(text)


@asynccontextmanager
async def begun(judge: Callable[[list[str]], Answer] = lambda lines: OK) -> AsyncIterator[Target]:
    target = Target(judge)
    target.posts.begin()
    async with asyncio.timeout(BOUND):
        yield target
        await target.posts.close()


async def test_messages_that_come_during_a_request_go_together_in_the_next() -> None:
    async with begun() as target:
        target.gate.clear()
        await target.put("1")
        await soon(target.arrived)
        await target.put("2", "3", "4")
        target.gate.set()
        await target.posts.drain()
    assert target.bodies == [["1"], ["2", "3", "4"]]
    assert target.told == []


async def test_after_a_pause_the_next_message_is_posted_again() -> None:
    async with begun() as target:
        for text in "ab":
            await target.put(text)
            await turns()
    assert target.bodies == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n"a":\r\n[1]\n}\n', '{ "a":  [1] } '),
        ('"a\u2028b\u0085c"', '"a\u2028b\u0085c"'),
        ("no\njson", "no json"),
    ],
)
async def test_a_message_is_one_line(text: str, line: str) -> None:
    async with begun() as target:
        await target.put(text)
        await target.posts.drain()
    assert target.bodies == [[line]]


@pytest.mark.parametrize("text", ["", " ", "\r\n"])
async def test_an_empty_message_is_not_posted(text: str) -> None:
    async with begun() as target:
        await target.put(text)
        await target.posts.drain()
    assert target.bodies == []


async def test_before_the_beginning_messages_are_kept() -> None:
    target = Target()
    await target.put("1", "2")
    await turns()
    assert (target.bodies, target.posts.first) == ([], "1")
    target.posts.begin()
    await target.posts.drain()
    assert (target.bodies, target.posts.first) == ([["1", "2"]], "")


async def test_what_was_sent_before_the_beginning_is_also_posted_after_the_client_has_left() -> None:
    target = Target()
    await target.put("1")
    draining = asyncio.create_task(target.posts.drain())
    await turns()
    assert not draining.done()
    target.posts.begin()
    await draining
    assert target.bodies == [["1"]]


async def test_without_a_beginning_nothing_is_posted() -> None:
    target = Target()
    await target.put("1")
    await target.posts.close()
    target.posts.begin()
    await turns()
    assert target.bodies == []


@pytest.mark.parametrize(
    ("fitting", "more"),
    [
        (["x"] * MAX_MESSAGES, "y"),
        (["x" * (MAX_BYTES - 10)], "y" * 10),
        (["x" * MAX_BYTES * 2], "y"),
    ],
    ids=["count", "bytes", "one large message"],
)
async def test_a_client_is_held_back_while_too_much_is_unposted(fitting: list[str], more: str) -> None:
    async with begun() as target:
        target.gate.clear()
        await target.put(*fitting)
        putting = asyncio.create_task(target.put(more))
        await turns()
        assert not putting.done()
        target.gate.set()
        await putting
        await target.posts.drain()
    assert [line for body in target.bodies for line in body] == [*fitting, more]


async def test_a_message_that_has_no_room_is_not_taken() -> None:
    target = Target()
    assert [target.posts.put_nowait(text) for text in ["x"] * MAX_MESSAGES + ["y", " "]] == [
        *[True] * MAX_MESSAGES,
        False,
        True,  # nothing to post
    ]
    target.posts.begin()
    await target.posts.drain()
    assert target.bodies == [["x"] * MAX_MESSAGES]


async def test_of_several_lines_only_the_bad_ones_are_refused() -> None:
    def judge(lines: list[str]) -> Answer:
        bad = [line for line in lines if line.startswith("bad")]
        return refusal(422, f'{{"bad":"{bad[0]}"}}') if bad else OK

    target = Target(judge)
    lines = ["1", "bad 2", "3", "bad 4", "5", "6", "7", "8"]
    await target.put(*lines)
    target.posts.begin()
    await target.posts.drain()
    assert target.bodies[:4] == [lines, lines[:4], lines[:2], lines[:1]]
    accepted = [line for body in target.bodies if judge(body) is OK for line in body]
    assert accepted == ["1", "3", "5", "6", "7", "8"]
    assert target.told == ['{"bad":"bad 2"}', '{"bad":"bad 4"}']


async def test_a_later_attempt_is_the_same_line_before_any_other() -> None:
    busy = 2

    def judge(lines: list[str]) -> Answer:
        nonlocal busy
        busy -= 1
        return OK if busy < 0 else Answer(429, [(b"retry-after", b"0")])

    async with begun(judge) as target:
        await target.put("1")
        await soon(target.arrived)
        await target.put("2", "3")
        await target.posts.drain()
    assert target.bodies == [["1"], ["1"], ["1"], ["2", "3"]]
    assert target.told == []


async def test_lines_for_which_there_is_no_room_together_are_posted_in_parts() -> None:
    def judge(lines: list[str]) -> Answer:
        return OK if len(lines) <= 2 else Answer(429, [(b"retry-after", b"30")])

    target = Target(judge)
    await target.put(*"12345")
    target.posts.begin()
    await target.posts.drain()
    assert target.bodies == [[*"12345"], [*"12"], [*"345"], [*"3"], [*"45"]]


async def test_lines_that_may_have_been_accepted_are_posted_again_with_their_key() -> None:
    answers = [Answer(503, [(b"retry-after", b"0")]), Answer(429, [(b"retry-after", b"0")]), OK, OK]

    target = Target(lambda lines: answers.pop(0))
    await target.put(*"1234")
    target.posts.begin()
    await soon(target.arrived)
    await target.put("5")
    await target.posts.drain()
    assert target.bodies == [[*"1234"]] * 3 + [["5"]]
    first, again, last, other = target.keys
    assert first == again == last != other


async def test_lines_that_were_refused_are_posted_with_other_keys() -> None:
    async with begun(lambda lines: OK if len(lines) < 3 else Answer(429, [(b"retry-after", b"0")])) as target:
        await target.put(*"1234")
        await target.posts.drain()
    assert len(set(target.keys)) == len(target.bodies) == 3


async def test_each_new_attempt_waits_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def judge(lines: list[str]) -> Answer:
        times.append(loop.time())
        return Answer(503, [(b"retry-after", b"30")]) if len(times) < 7 else OK

    target = Target(judge)
    await target.put("1")
    target.posts.begin()
    await target.posts.drain()
    assert len(times) == 7
    assert all(times[number + 1] - times[number] >= 0.0009 * 2**number for number in range(6))


@pytest.mark.parametrize("status", [404, 410])
async def test_if_the_target_is_gone_nothing_more_is_posted(status: int) -> None:
    async with begun(lambda lines: refusal(status, '{"gone":true}')) as target:
        target.gate.clear()
        await target.put("0")
        await soon(target.arrived)
        await target.put(*["x"] * (MAX_MESSAGES - 1))
        held_back = asyncio.create_task(target.put("y"))
        target.gate.set()
        await held_back
        await target.put("z")
        await target.posts.drain()
    assert target.bodies == [["0"]]
    assert target.told == ['{"gone":true}']


async def test_a_close_gives_up_what_is_unposted_and_lets_the_request_finish() -> None:
    async with begun(lambda lines: refusal(422, "{}")) as target:
        target.gate.clear()
        await target.put("1")
        await soon(target.arrived)
        await target.put("2")
        closing = asyncio.create_task(target.posts.close())
        await turns()
        assert not closing.done()
        target.gate.set()
        await closing
    assert target.bodies == [["1"]]
    assert target.told == []
    assert not target.cancelled


async def test_a_close_does_not_wait_for_a_later_attempt() -> None:
    async with begun(lambda lines: Answer(503, [(b"retry-after", b"30")])) as target:
        await target.put("1")
        await soon(target.arrived)
    assert target.bodies == [["1"]]


async def test_a_request_without_an_end_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.01)
    async with begun() as target:
        target.gate.clear()
        await target.put("1")
        await soon(target.arrived)
        await target.put("2")
        await target.posts.drain()
    assert target.cancelled
    assert target.bodies == [["1"]]


async def test_a_close_that_is_cancelled_leaves_no_request_behind() -> None:
    async with begun() as target:
        target.gate.clear()
        await target.put("1")
        await soon(target.arrived)
        closing = asyncio.create_task(target.posts.close())
        await turns()
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
    assert target.cancelled

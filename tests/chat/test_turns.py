"""A turn by itself: the objects that it yields, and what it settles with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from tailrace import Result, StreamError
from tailrace.chat.journal import Journal
from tailrace.chat.metrics import Metrics, Observer
from tailrace.chat.models.base import Message, Model, ModelError, Reasoning, Usage
from tailrace.chat.objects import INTERRUPTED, encode_object
from tailrace.chat.store import Turn
from tailrace.chat.turns import Context, RunningTurn, fit_context, replay
from tests.chat.api.talking import Scripted

TURN = Turn(1, "session", "S" * 22, None, "Hello", "scripted", 1_700_000_000.0)
CONTEXT = Context([Message("user", "Hello")], 0)


class Settled:
    """Keeps what turns are settled with; raises `failure` then."""

    def __init__(self, failure: StreamError | None = None) -> None:
        self.turns: list[Turn] = []
        self.failure = failure

    async def __call__(self, turn: RunningTurn) -> None:
        self.turns.append(turn.turn)
        if self.failure is not None:
            raise self.failure


def running(model: Any, settled: Settled, max_reply: int = 1000) -> RunningTurn:
    watch = Observer(Metrics(), Journal()).turn_started(TURN, "", "127.0.0.1")
    return RunningTurn(TURN, CONTEXT, model, watch, settled, message_count=2, max_reply=max_reply)


async def collect(objects: AsyncGenerator[Any, None]) -> tuple[list[str], Exception | None]:
    """The types of what comes, and what is raised at the end. The Result comes last."""
    types: list[str] = []
    async with aclosing(objects) as items:
        try:
            async for item in items:
                types += [item.data["type"] if isinstance(item, Result) else _type(item)]
        except Exception as error:
            return types, error
    return types, None


def _type(item: Any) -> str:
    kind: str = from_json(encode_object(item)[1])["type"]
    return kind


async def test_a_turn_is_settled_with_all_that_is_known() -> None:
    settled = Settled()
    turn = running(Scripted("one ", "two", Usage(3, 2)), settled)
    types, error = await collect(turn.objects())
    assert types == ["session_info", "status", "chunk", "chunk", "chunk", "complete"]
    assert error is None
    [done] = settled.turns
    assert (done.state, done.reply, done.chunks, done.usage) == ("complete", "one two", 3, Usage(3, 2))
    assert (done.context_messages, done.error_code) == (1, None)
    assert done.seconds >= 0
    await turn.end_unheard()
    assert settled.turns == [done]


@pytest.mark.parametrize(
    ("pieces", "reply", "chunks"),
    [
        (("é ", "\ud83d", "\ude00", " b"), "é 😀 b", 3),
        (("a\ud83d", "\ude00b"), "a😀b", 2),
        (("a", "\ud83d"), "a\ufffd", 2),
        (("\ude00", "\ud83dx"), "\ufffd\ufffdx", 2),
        (("😀", "日本"), "😀日本", 2),
    ],
)
async def test_a_character_that_comes_in_halves_is_put_together(
    pieces: tuple[str, ...], reply: str, chunks: int
) -> None:
    settled = Settled()
    types, error = await collect(running(Scripted(*pieces), settled).objects())
    assert error is None
    assert (settled.turns[0].reply, types.count("chunk")) == (reply, chunks + 1)


@pytest.mark.parametrize(
    ("failure", "code"), [(ModelError("no", code="model_refused"), "model_refused"), (KeyError("x"), "internal_error")]
)
async def test_a_turn_that_fails_is_settled_and_raises(failure: Exception, code: str) -> None:
    settled = Settled()
    types, error = await collect(running(Scripted("one ", failure), settled).objects())
    assert error is failure
    assert types[-2:] == ["chunk", "error"]
    assert (settled.turns[0].state, settled.turns[0].error_code, settled.turns[0].reply) == ("failed", code, "one ")


@pytest.mark.parametrize(
    ("pieces", "reply", "code"),
    [
        (("one", "two"), "onetwo", None),
        (("one", "two", "3"), "onetwo", "model_truncated"),
        (("one", "two" * 1000), "onetwo", "model_truncated"),
        (("€", "😀" * 6), "€😀😀😀😀😀", "model_truncated"),
        (("onetwo", "\ud83d", "\ude00"), "onetwo", "model_truncated"),
        (("onetwo", "\ud83d"), "onetwo", "model_truncated"),
    ],
)
async def test_a_reply_has_a_bound(pieces: tuple[str, ...], reply: str, code: str | None) -> None:
    settled, model = Settled(), Scripted(*pieces)
    _, error = await collect(running(model, settled, len(reply)).objects())
    assert getattr(error, "code", None) == code
    assert (settled.turns[0].reply, settled.turns[0].error_code) == (reply, code)
    assert model.closed == 1


async def test_a_piece_that_is_no_text_fails_the_turn() -> None:
    settled = Settled()
    types, error = await collect(running(Scripted("one ", b"\xff"), settled).objects())  # type: ignore[arg-type]
    assert types[-2:] == ["chunk", "error"]
    assert isinstance(error, TypeError)
    assert str(error) == "expected model scripted to yield str, Reasoning or Usage, but got bytes"
    assert (settled.turns[0].state, settled.turns[0].error_code) == ("failed", "internal_error")


@pytest.mark.parametrize("stopping", [False, True])
async def test_a_generator_that_is_closed_settles_later(stopping: bool) -> None:
    settled = Settled()
    turn = running(Scripted(), settled)
    objects = turn.objects()
    for _ in range(3):
        await anext(objects)
    if stopping:
        turn.stop()
    await objects.aclose()
    assert not settled.turns
    await turn.end_unheard()
    assert (settled.turns[0].state, settled.turns[0].reply) == ("stopped" if stopping else "interrupted", "one ")


async def test_the_end_of_the_server_is_told_as_the_last_object() -> None:
    settled = Settled()
    objects = running(Scripted("one ", asyncio.CancelledError()), settled).objects()
    *_, last = [item async for item in objects]
    assert isinstance(last, Result)
    assert (last.data["type"], last.data["code"], last.data["message"]) == ("error", "interrupted", INTERRUPTED)
    assert (settled.turns[0].state, settled.turns[0].reply) == ("interrupted", "one ")


async def test_reasoning_is_no_part_of_the_reply() -> None:
    settled = Settled()
    model = Scripted(Reasoning("hm "), "one", Reasoning("\ud83d"), Reasoning("more"))
    objects = [item async for item in running(model, settled).objects()]
    thoughts = [encode_object(item) for item in objects if isinstance(item, dict) and item["type"] == "reasoning"]
    assert [(event, from_json(json)["text"]) for event, json in thoughts] == [
        ("reasoning", "hm "),
        ("reasoning", "\ufffd"),
        ("reasoning", "more"),
    ]
    assert (settled.turns[0].reply, settled.turns[0].chunks) == ("one", 2)


async def test_reasoning_has_a_bound() -> None:
    settled, model = Settled(), Scripted(Reasoning("hm"), "one", Reasoning("m"))
    _, error = await collect(running(model, settled, 2).objects())
    assert getattr(error, "code", None) == "model_truncated"
    settled, model = Settled(), Scripted("one", Reasoning("hm"), Reasoning("mm"))
    types, error = await collect(running(model, settled, 3).objects())
    assert types[2:] == ["chunk", "reasoning", "error"]
    assert getattr(error, "code", None) == "model_truncated"
    assert (settled.turns[0].state, settled.turns[0].reply) == ("failed", "one")


async def test_a_stop_before_the_model_is_asked_needs_no_model() -> None:
    class Nobody(Model):
        def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str, None]:
            raise AssertionError("it is not asked")

    settled = Settled()
    turn = running(Nobody(), settled)
    turn.stop()
    assert (await collect(turn.objects()))[0] == ["session_info", "status", "chunk", "complete"]
    assert settled.turns[0].state == "stopped"


@pytest.mark.parametrize("stopping", [False, True])
async def test_a_turn_that_cannot_be_settled_says_so(stopping: bool) -> None:
    settled = Settled(StreamError("not stored", code="storage_failed"))
    turn = running(Scripted(), settled)
    if stopping:
        turn.stop()
    types, error = await collect(turn.objects())
    assert (types[-1], error) == ("error", None if stopping else settled.failure)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_stop_while_a_failure_is_stored_does_not_hide_it(stored: bool) -> None:
    class Stopping(Settled):
        async def __call__(self, turn: RunningTurn) -> None:
            turn.stop()
            await super().__call__(turn)

    settled = Stopping(None if stored else StreamError("not stored", code="storage_failed"))
    objects = running(Scripted("one ", ModelError("no", code="model_refused")), settled).objects()
    *_, last = [item async for item in objects]
    assert isinstance(last, Result)
    told = ("model_refused", "no") if stored else ("storage_failed", "not stored")
    assert (last.data["type"], last.data["code"], last.data["message"]) == ("error", *told)
    assert (settled.turns[0].state, settled.turns[0].error_code) == ("failed", "model_refused")


@pytest.mark.parametrize(
    ("state", "reply", "types", "code"),
    [
        ("complete", "text", ["chunk", "complete"], None),
        ("stopped", "", ["chunk", "complete"], None),
        ("failed", "text", ["chunk", "error"], "model_error"),
        ("failed", "", ["error"], "model_error"),
        ("interrupted", "text", ["chunk", "error"], "interrupted"),
        ("generating", "", ["error"], "generating"),
    ],
)
async def test_a_replay_ends_as_the_turn_did(state: Any, reply: str, types: list[str], code: str | None) -> None:
    failed = {"error_code": "model_error", "error_message": "broken"} if state == "failed" else {}
    turn = Turn(1, "session", "S" * 22, None, "Hello", "m", 0.0, state, reply, 5, **failed)  # type: ignore[arg-type]
    got, error = await collect(replay(turn, 4))
    assert got == ["session_info", "status", *types]
    if code is None:
        assert error is None
    else:
        assert isinstance(error, StreamError)
        assert error.code == code


# What the model is sent


def earlier_turn(number: int, message: str, reply: str) -> Turn:
    return Turn(number, "session", f"{number:022}", None, message, "m", 0.0, "complete", reply)


turns = st.lists(st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=20)), max_size=8).map(
    lambda pairs: [earlier_turn(number, *pair) for number, pair in enumerate(pairs)]
)


@given(turns, st.text(min_size=1, max_size=60), st.integers(1, 12), st.integers(1, 100))
def test_the_newest_turns_go_whole_and_in_order(
    earlier: list[Turn], message: str, max_messages: int, max_characters: int
) -> None:
    context = fit_context(
        earlier, message, earlier=len(earlier), max_messages=max_messages, max_characters=max_characters
    )
    *before, asked = context.messages
    assert asked == Message("user", message)
    used = len(earlier) - context.dropped // 2
    kept = earlier[len(earlier) - used :]
    expected = [
        each
        for turn in kept
        for each in (Message("user", turn.message), Message("assistant", turn.reply))
        if each.text or each.role == "user"
    ]
    assert before == expected
    assert len(context.messages) <= max(max_messages, 1)
    assert not before or sum(len(each.text) for each in context.messages) <= max_characters


@pytest.mark.parametrize(
    ("count", "dropped", "said"),
    [
        (1, 0, "Generating response… (1 message in context)"),
        (3, 0, "Generating response… (3 messages in context)"),
        (3, 4, "Generating response… (3 messages in context; the 4 oldest did not fit)"),
    ],
)
def test_a_context_is_told_in_a_line(count: int, dropped: int, said: str) -> None:
    assert Context([Message("user", "x")] * count, dropped).describe() == said

"""Each provider is asked over a socket, and every way in which a reply can end is told apart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from tailrace.chat.models.base import Message, Model, ModelError, Usage
from tailrace.chat.models.choose import open_model
from tests.chat.models.anthropic_upstream import ANTHROPIC
from tests.chat.models.google_upstream import GOOGLE
from tests.chat.models.openai_upstream import OLLAMA, OPENAI
from tests.chat.models.upstream import Break, Dialect, Hold, Refuse, Step, Upstream
from tests.serving import free_port, serving

DIALECTS = {"google": GOOGLE, "openai": OPENAI, "anthropic": ANTHROPIC, "ollama": OLLAMA}
HELLO = [Message("user", "Hello")]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@asynccontextmanager
async def asking(
    dialect: Dialect, steps: Sequence[Step] = (), silence: float = 10
) -> AsyncIterator[tuple[Model, Upstream]]:
    """The model, and the upstream that takes `steps` when it is asked."""
    upstream = Upstream(steps)
    async with (
        serving(upstream, lifespan="off") as url,
        open_model(dialect.model, dialect.environment(url), demo_words=1, demo_pace=0, timeout=silence) as model,
        asyncio.timeout(20),
    ):
        yield model, upstream


class Reply(NamedTuple):
    text: str
    usage: Usage | None
    error: ModelError | None


async def read(model: Model, conversation: Sequence[Message] = HELLO) -> Reply:
    pieces: list[str | Usage] = []
    error = None
    try:
        async for piece in model.reply(conversation):
            assert piece
            pieces.append(piece)
    except ModelError as failure:
        error = failure
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return Reply(text, next((piece for piece in pieces if isinstance(piece, Usage)), None), error)


async def test_text_comes_in_pieces_and_usage_at_the_end(dialect: Dialect) -> None:
    texts = ["Good", " day\n", "\n```py\n", "  x = 1 < 2 & 3  ", "\n```\n", "– ünïcödé 🌊 "]
    steps = [dialect.begin + dialect.text(texts[0]), *map(dialect.text, texts[1:]), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, upstream):
        pieces = [piece async for piece in model.reply(HELLO)]
    assert pieces == [*texts, Usage(7, 11)]
    assert model.name == dialect.model.removeprefix("openai:").removeprefix("ollama:")
    assert model.framework.startswith("pydantic-ai 2.")
    assert [request.path for request in upstream.requests] == [dialect.path]


class Case(NamedTuple):
    """What an upstream does, and what becomes of it; `said` are parts of the message, in the words of the upstream."""

    steps: Callable[[Dialect], Sequence[Step]]
    code: str
    status: int
    said: str
    text: str = ""


def refusal(name: str) -> Callable[[Dialect], Sequence[Step]]:
    return lambda dialect: [dialect.refusals[name]]


def after_text(*steps: Callable[[Dialect], Step]) -> Callable[[Dialect], Sequence[Step]]:
    return lambda dialect: [dialect.begin + dialect.text("Half of "), *(step(dialect) for step in steps)]


HALF = "Half of "
CASES = {
    "a wrong key": Case(refusal("unauthorized"), "model_unauthorized", 502, "127.0.0.1 does not accept the "),
    "an unknown model": Case(refusal("unknown"), "model_not_found", 502, "--model or GENAI_MODEL_ID names another one"),
    "a rate limit": Case(refusal("limited"), "model_rate_limited", 503, "asked too often, and wants 7 seconds of rest"),
    "a quota": Case(refusal("spent"), "model_rate_limited", 503, "the quota or the credit at 127.0.0.1 is used up"),
    "an error of the server": Case(refusal("failed"), "model_error", 502, "127.0.0.1 failed"),
    "an overloaded server": Case(refusal("overloaded"), "model_unavailable", 503, "is not available at the moment"),
    "too long a conversation": Case(refusal("too long"), "context_too_long", 413, "longer than the model "),
    "another mistake": Case(refusal("rejected"), "model_error", 502, "did not accept the request"),
    "an error in the middle": Case(
        after_text(lambda dialect: dialect.error), "model_unavailable", 503, "is not available at the moment", HALF
    ),
    "an error instead of text": Case(
        lambda dialect: [dialect.begin + dialect.error], "model_unavailable", 503, "is not available at the moment"
    ),
    "a reset in the middle": Case(
        after_text(lambda _: Break()), "model_truncated", 502, "broke off before the end", HALF
    ),
    "a reset before text": Case(lambda _: [Break()], "model_unavailable", 503, "no connection to 127.0.0.1"),
    "an end without a reason": Case(after_text(), "model_truncated", 502, "broke off before the end", HALF),
    "an end before text": Case(lambda dialect: [dialect.begin], "model_truncated", 502, "broke off"),
    "half a frame": Case(
        after_text(lambda dialect: dialect.ends["whole"][:30]), "model_truncated|model_error", 502, "", HALF
    ),
    "the length limit": Case(
        after_text(lambda dialect: dialect.ends["length"]), "model_truncated", 502, "reached the length", HALF
    ),
    "a content filter": Case(
        after_text(lambda dialect: dialect.ends["refused"]), "model_refused", 422, "refuses to answer this", HALF
    ),
    "a refusal without text": Case(
        lambda dialect: [dialect.begin + dialect.ends["refused"]], "model_refused", 422, "refuses to answer this"
    ),
    "an odd end": Case(
        after_text(lambda dialect: dialect.ends["odd"]), "model_error", 502, "no reason that fits", HALF
    ),
    "no text at all": Case(
        lambda dialect: [dialect.begin + dialect.ends["whole"]], "model_error", 502, "answered without a word"
    ),
    "no JSON": Case(
        after_text(lambda dialect: dialect.text("no").replace(b'": ', b"= ")), "model_error", 502, "failed", HALF
    ),
}


async def test_a_reply_that_does_not_come_to_its_end_is_a_failure(dialect: Dialect, subtests: pytest.Subtests) -> None:
    async with asking(dialect) as (model, upstream):
        for name, case in CASES.items():
            with subtests.test(name):
                upstream.play(case.steps(dialect))
                reply = await read(model)
                assert reply.error is not None
                assert re.fullmatch(case.code, reply.error.code), repr(reply.error.__cause__)
                assert (reply.text, reply.error.status, reply.usage) == (case.text, case.status, None)
                assert case.said in reply.error.message
                assert "sk-test" not in reply.error.message
                assert len(upstream.requests) == 1, "a turn is asked once"


async def test_thoughts_are_not_text(dialect: Dialect) -> None:
    steps = [dialect.begin + dialect.thought("Hm."), dialect.text("Yes."), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, _):
        assert await read(model) == ("Yes.", Usage(7, 11), None)


async def test_the_conversation_is_sent_with_sides_that_take_turns(dialect: Dialect) -> None:
    conversation = [
        Message("user", "One"),
        Message("assistant", "Two"),
        Message("user", "Three, unanswered"),
        Message("user", "Four, answered with nothing"),
        Message("assistant", ""),
        Message("user", "Five"),
    ]
    steps = [dialect.begin + dialect.text("Six"), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, upstream):
        assert (await read(model, conversation)).text == "Six"
        assert dialect.sides(upstream.requests[0].body) == [
            ("user", "One"),
            ("assistant", "Two"),
            ("user", "Three, unanswered\n\nFour, answered with nothing\n\nFive"),
        ]


HOLDS: dict[str, Callable[[Dialect], Sequence[Step]]] = {
    "before the headers": lambda dialect: [Hold(), dialect.begin + dialect.text("Half")],
    "before the first word": lambda dialect: [dialect.begin, Hold(), dialect.text("Half")],
    "in the middle": lambda dialect: [dialect.begin + dialect.text("Half"), Hold()],
}


def held(dialect: Dialect) -> Iterator[tuple[str, list[Step]]]:
    """Where a model may pause, and then the rest of its reply."""
    for name, steps in HOLDS.items():
        yield name, [*steps(dialect), dialect.text(" and half."), dialect.ends["whole"]]


async def test_a_model_may_take_its_time(dialect: Dialect, subtests: pytest.Subtests) -> None:
    async with asking(dialect) as (model, upstream):
        for name, steps in held(dialect):
            with subtests.test(name):
                upstream.play(steps)
                reading = asyncio.create_task(read(model))
                await upstream.held.wait()
                assert not reading.done()
                upstream.release.set()
                assert await reading == ("Half and half.", Usage(7, 11), None)


async def test_a_model_that_stays_silent_is_unavailable(dialect: Dialect, subtests: pytest.Subtests) -> None:
    async with asking(dialect, silence=0.1) as (model, upstream):
        for name, steps in held(dialect):
            with subtests.test(name):
                upstream.play(steps)
                reply = await read(model)
                await upstream.left.wait()
                assert reply.error is not None
                assert (reply.error.code, reply.error.status) == ("model_unavailable", 503)
                assert reply.error.message == "127.0.0.1 was silent for 0.1 seconds"


async def test_cancelling_a_reply_leaves_the_upstream(dialect: Dialect, subtests: pytest.Subtests) -> None:
    async with asking(dialect) as (model, upstream):
        for name, steps in held(dialect):
            with subtests.test(name):
                upstream.play(steps)
                reading = asyncio.create_task(read(model))
                await upstream.held.wait()
                reading.cancel()
                await upstream.left.wait()
                with pytest.raises(asyncio.CancelledError):
                    await reading


async def test_closing_a_reply_leaves_the_upstream(dialect: Dialect) -> None:
    async with asking(dialect, [dialect.begin + dialect.text("Half"), Hold()]) as (model, upstream):
        reply = model.reply(HELLO)
        assert await anext(reply) == "Half"
        await reply.aclose()
        await upstream.left.wait()


async def test_two_replies_at_a_time_are_stopped_each_by_itself(dialect: Dialect) -> None:
    steps: list[Step] = [
        dialect.begin + dialect.text("Half"),
        Hold(),
        dialect.text(" and half."),
        dialect.ends["whole"],
    ]
    async with asking(dialect, steps) as (model, upstream):
        stopped, going = model.reply(HELLO), model.reply(HELLO)
        assert [await anext(stopped), await anext(going)] == ["Half", "Half"]
        await stopped.aclose()
        await upstream.left.wait()
        upstream.release.set()
        assert [piece async for piece in going] == [" and half.", Usage(7, 11)]


async def test_a_reply_may_come_without_usage() -> None:
    async with asking(OPENAI, [OPENAI.text("Uncounted."), OPENAI.ends["uncounted"]]) as (model, _):
        assert await read(model) == ("Uncounted.", None, None)


async def test_a_message_that_google_blocks_is_refused() -> None:
    async with asking(GOOGLE, [GOOGLE.ends["blocked"]]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.code == "model_refused"


async def test_a_message_that_a_server_refuses_with_a_status_is_refused() -> None:
    error = {"message": "filtered", "type": "invalid_request_error", "code": "content_filter"}
    async with asking(OPENAI, [Refuse(400, {"error": error})]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert (reply.error.code, reply.error.status) == ("model_refused", 422)


@pytest.mark.parametrize("name", ["google", "openai", "anthropic"])
async def test_the_key_is_sent(name: str) -> None:
    dialect = DIALECTS[name]
    async with asking(dialect, [dialect.begin + dialect.text("Yes"), dialect.ends["whole"]]) as (model, upstream):
        await read(model)
    assert any("sk-test" in value for value in upstream.requests[0].headers.values())


async def test_nobody_at_the_address_is_said(dialect: Dialect) -> None:
    environment = dialect.environment(f"http://127.0.0.1:{free_port()}")
    async with open_model(dialect.model, environment, demo_words=1, demo_pace=0, timeout=10) as model:
        reply = await read(model)
    assert reply.error is not None
    assert (reply.error.code, reply.error.status) == ("model_unavailable", 503)
    assert reply.error.message == "there is no connection to 127.0.0.1"

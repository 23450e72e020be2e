"""Each provider is asked over a socket, and every way in which a reply can end is told apart."""

from __future__ import annotations

import asyncio
import logging
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
from tests.chat.models.upstream import Break, Dialect, Hold, Refuse, Step, Upstream, data
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
    said: str
    text: str = ""


def refusal(name: str) -> Callable[[Dialect], Sequence[Step]]:
    return lambda dialect: [dialect.refusals[name]]


def after_text(*steps: Callable[[Dialect], Step]) -> Callable[[Dialect], Sequence[Step]]:
    return lambda dialect: [dialect.begin + dialect.text("Half of "), *(step(dialect) for step in steps)]


HALF = "Half of "
CASES = {
    "a wrong key": Case(refusal("unauthorized"), "model_unauthorized", "127.0.0.1 does not accept the "),
    "an unknown model": Case(refusal("unknown"), "model_not_found", "--model or GENAI_MODEL_ID names another one"),
    "a rate limit": Case(refusal("limited"), "model_rate_limited", "asked too often, and wants 7 seconds of rest"),
    "a quota": Case(refusal("spent"), "model_rate_limited", "the quota or the credit at 127.0.0.1 is used up"),
    "an error of the server": Case(refusal("failed"), "model_error", "127.0.0.1 failed"),
    "an overloaded server": Case(refusal("overloaded"), "model_unavailable", "is not available at the moment"),
    "too long a conversation": Case(refusal("too long"), "context_too_long", "longer than the model "),
    "another mistake": Case(refusal("rejected"), "model_error", "did not accept the request"),
    "an error in the middle": Case(
        after_text(lambda dialect: dialect.error), "model_unavailable", "is not available at the moment", HALF
    ),
    "an error instead of text": Case(
        lambda dialect: [dialect.begin + dialect.error], "model_unavailable", "is not available at the moment"
    ),
    "a reset in the middle": Case(after_text(lambda _: Break()), "model_truncated", "broke off before the end", HALF),
    "a reset before text": Case(lambda _: [Break()], "model_unavailable", "no connection to 127.0.0.1"),
    "an end without a reason": Case(after_text(), "model_truncated", "broke off before the end", HALF),
    "an end before text": Case(lambda dialect: [dialect.begin], "model_truncated", "broke off"),
    "half a frame": Case(
        after_text(lambda dialect: dialect.ends["whole"][:30]), "model_truncated|model_error", "", HALF
    ),
    "the length limit": Case(
        after_text(lambda dialect: dialect.ends["length"]), "model_truncated", "reached the length", HALF
    ),
    "a content filter": Case(
        after_text(lambda dialect: dialect.ends["refused"]), "model_refused", "refuses to answer this", HALF
    ),
    "a refusal without text": Case(
        lambda dialect: [dialect.begin + dialect.ends["refused"]], "model_refused", "refuses to answer this"
    ),
    "an odd end": Case(after_text(lambda dialect: dialect.ends["odd"]), "model_error", "no reason that fits", HALF),
    "no text at all": Case(
        lambda dialect: [dialect.begin + dialect.ends["whole"]], "model_error", "answered without a word"
    ),
    "no JSON": Case(
        after_text(lambda dialect: dialect.text("no").replace(b'": ', b"= ")), "model_error", "failed", HALF
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
                assert (reply.text, reply.usage) == (case.text, None)
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
                assert reply.error.code == "model_unavailable"
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
    assert reply.error.code == "model_refused"


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
    assert reply.error.code == "model_unavailable"
    assert reply.error.message == "there is no connection to 127.0.0.1"


CAUSES: dict[str, tuple[Callable[[Dialect], Sequence[Step]], str]] = {
    "a wrong key": (refusal("unauthorized"), r"ModelAuthenticationError \(HTTP 40[01]\): .*key.* \*\*\*.*"),
    "another mistake": (refusal("rejected"), r"ModelRequestRejectedError \(HTTP 400\): \S.*"),
    "a reset": (lambda _: [Break()], r"ModelConnectionError \(HTTP 200\): .*peer closed connection.*"),
}


async def test_the_cause_of_a_failure_is_logged_once_without_keys(
    dialect: Dialect, subtests: pytest.Subtests, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(dialect) as (model, upstream):
        for name, (steps, cause) in CAUSES.items():
            with subtests.test(name):
                caplog.clear()
                upstream.play(steps(dialect))
                assert (await read(model)).error is not None
                [record] = [record for record in caplog.records if record.name == "tailrace.chat.models"]
                assert record.levelno == logging.WARNING
                assert re.fullmatch(f"the model {model.name} failed: {cause}", record.getMessage())
                assert "sk-test" not in caplog.text
                assert "Traceback" not in caplog.text


async def test_an_unknown_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    boom = data({"error": {"message": "boom\nwith sk-test in it"}})
    async with asking(OPENAI, [OPENAI.begin + OPENAI.text(HALF), boom]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.message == "the model gpt-of-the-test failed"
    [record] = [record for record in caplog.records if record.name == "tailrace.chat.models"]
    assert record.getMessage() == ("the model gpt-of-the-test failed: ModelAPIError (HTTP 200): boom with *** in it")
    assert record.exc_text is not None
    assert record.exc_text.startswith("Traceback")
    assert record.exc_text.endswith("ModelAPIError: boom\nwith *** in it")
    assert "sk-test" not in caplog.text


async def test_no_cause_is_sought_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "tailrace.chat.models")
    async with asking(OPENAI, [OPENAI.refusals["failed"]]) as (model, _):
        assert (await read(model)).error is not None
    assert caplog.records == []


async def test_rest_is_named_only_where_it_helps(dialect: Dialect) -> None:
    async with asking(dialect) as (model, upstream):
        for name in ("unauthorized", "unknown", "rejected"):
            upstream.play([dialect.refusals[name]._replace(headers={"retry-after": "7"})])
            reply = await read(model)
            assert reply.error is not None
            assert "rest" not in reply.error.message


async def test_a_page_in_place_of_a_reply_is_no_api(dialect: Dialect, caplog: pytest.LogCaptureFixture) -> None:
    page = Refuse(200, b"<!doctype html><p>It works!", {"content-type": "text/html; charset=utf-8"})
    async with asking(dialect, [page]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.code == "model_error"
    address = next(name for name in dialect.environment("") if name.endswith("_BASE_URL"))
    assert reply.error.message == (f"127.0.0.1 answers with text/html, which no API does: {address} names the address")
    assert len(caplog.records) == 1

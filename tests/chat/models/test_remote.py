"""Each provider is asked over a socket, and every way in which a reply can end is told apart."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tailrace.chat.models import open_model
from tailrace.chat.models.base import Message, Model, ModelError, Piece, Reasoning, Usage
from tests.chat.models.anthropic_upstream import ANTHROPIC
from tests.chat.models.google_upstream import GOOGLE
from tests.chat.models.openai_upstream import OLLAMA, OPENAI
from tests.chat.models.upstream import Break, Dialect, Hold, Pause, Refuse, Step, Upstream, data
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
        asyncio.timeout(30),
    ):
        yield model, upstream


class Reply(NamedTuple):
    text: str
    usage: Usage | None
    error: ModelError | None


async def read(model: Model, conversation: Sequence[Message] = HELLO) -> Reply:
    pieces: list[Piece] = []
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
    "an unknown model": Case(refusal("unknown"), "model_not_found", "name another one by --model or GENAI_MODEL_ID"),
    "a rate limit": Case(
        refusal("limited"), "model_rate_limited", "is getting too many requests; it asks for a pause of 7 seconds"
    ),
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
    "a reset before text": Case(lambda _: [Break()], "model_unavailable", "cannot connect to 127.0.0.1"),
    "an end without a reason": Case(after_text(), "model_truncated", "broke off before the end", HALF),
    "an end before text": Case(lambda dialect: [dialect.begin], "model_truncated", "broke off"),
    "half a frame": Case(
        after_text(lambda dialect: dialect.ends["whole"][:30]), "model_truncated|model_error", "", HALF
    ),
    "the length limit": Case(
        after_text(lambda dialect: dialect.ends["length"]),
        "model_truncated",
        "reached the maximum length of a reply",
        HALF,
    ),
    "a content filter": Case(
        after_text(lambda dialect: dialect.ends["refused"]), "model_refused", "refuses to answer this", HALF
    ),
    "a refusal without text": Case(
        lambda dialect: [dialect.begin + dialect.ends["refused"]], "model_refused", "refuses to answer this"
    ),
    "an odd end": Case(
        after_text(lambda dialect: dialect.ends["odd"]), "model_error", "a reason that does not fit", HALF
    ),
    "no text at all": Case(
        lambda dialect: [dialect.begin + dialect.ends["whole"]], "model_error", "answered without any text"
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


async def test_thoughts_are_reasoning_and_not_text(dialect: Dialect) -> None:
    steps = [dialect.begin + dialect.thought("Hm."), dialect.text("Yes."), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, _):
        assert [piece async for piece in model.reply(HELLO)] == [Reasoning("Hm."), "Yes.", Usage(7, 11)]


async def test_thoughts_alone_are_no_reply(dialect: Dialect) -> None:
    async with asking(dialect, [dialect.begin + dialect.thought("Hm."), dialect.ends["whole"]]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert (reply.error.code, reply.text) == ("model_error", "")
    assert "thought, but did not answer" in reply.error.message


async def test_a_connection_that_is_lost_in_a_thought_cuts_the_reply(dialect: Dialect) -> None:
    async with asking(dialect, [dialect.begin + dialect.thought("Hm."), Break()]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.code == "model_truncated"


# The pieces in which a server sends a text, and what comes of them. The first two once lost text of complete replies.
TAGGED: list[tuple[list[str], list[Piece]]] = [
    (["wrap it in ", "<think>", " tags, like so"], ["wrap it in ", "<think>", " tags, like so"]),
    (["<think>", "hm", "</think>\n\n42"], [Reasoning("hm"), "42"]),
    (["<think>hm</think>42"], [Reasoning("hm"), "42"]),
    (["\n", "<th", "ink>\nh", "m</thi", "nk>", "\n\n", "42"], [Reasoning("h"), Reasoning("m"), "42"]),
    (["<think>", "\n\n", "</think>", "\n\n", "42"], ["42"]),
    (["<thin", "g> is a tag"], ["<thing> is a tag"]),
]


@pytest.mark.parametrize(("texts", "pieces"), TAGGED)
@pytest.mark.parametrize("name", ["openai", "ollama"])
async def test_thoughts_between_tags_are_reasoning(name: str, texts: list[str], pieces: list[Piece]) -> None:
    dialect = DIALECTS[name]
    steps = [dialect.begin, *map(dialect.text, texts), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, _):
        assert [piece async for piece in model.reply(HELLO)] == [*pieces, Usage(7, 11)]


@pytest.mark.parametrize("name", ["google", "anthropic"])
async def test_tags_are_text_where_a_server_knows_its_thoughts(name: str) -> None:
    dialect = DIALECTS[name]
    steps = [dialect.begin + dialect.text("<think>hm</think>42"), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, _):
        assert (await read(model)).text == "<think>hm</think>42"


async def test_a_tag_that_is_never_whole_is_kept_when_the_reply_fails() -> None:
    async with asking(OPENAI, [OPENAI.begin + OPENAI.text("<thi"), OPENAI.ends["length"]]) as (model, _):
        reply = await read(model)
    assert reply.text == "<thi"
    assert reply.error is not None
    assert reply.error.code == "model_truncated"


async def test_thoughts_that_never_end_are_no_reply() -> None:
    async with asking(OPENAI, [OPENAI.begin + OPENAI.text("<think>hm</thi"), OPENAI.ends["whole"]]) as (model, _):
        reply = model.reply(HELLO)
        assert [await anext(reply), await anext(reply)] == [Reasoning("hm"), Reasoning("</thi")]
        with pytest.raises(ModelError, match="thought, but did not answer"):
            await anext(reply)


# How servers say that a conversation is too long, in their own words; none of them says it by a code of OpenAI's.
OVERFLOWS: dict[str, str | dict[str, Any]] = {
    "llama.cpp": {
        "code": 400,
        "message": "the request exceeds the available context size, try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    },
    "llama.cpp, by its type alone": {"code": 400, "message": "too much", "type": "exceed_context_size_error"},
    "llama.cpp, in the middle": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"},
    "llama-cpp-python": {"message": "Requested tokens (516) exceed context window of 512", "type": "internal"},
    "vLLM": {
        "message": "This model's maximum context length is 8 tokens. However, your request has 9 input tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    },
    "vLLM, older": {"message": "The prompt (total length 9) is too long to fit into the model (context length 8)."},
    "vLLM, older still": {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."},
    "Ollama": {"message": "the input length exceeds the context length", "type": "invalid_request_error"},
    "Ollama, its own model": {"message": "prompt too long; exceeded max context length by 5 tokens"},
    "LM Studio": "The number of tokens to keep from the initial prompt is greater than the context length (9 >= 8)",
    "LM Studio, older": {
        "message": "Trying to keep the first 9 tokens when context the overflows. However, the model is loaded with "
        "context length of only 8 tokens, which is not enough."
    },
    "LM Studio, in the middle": {
        "message": "Reached context length of 8 tokens with model (arch: x) that does not currently support "
        "mid-generation context overflow."
    },
    "SGLang": {"message": "The input (9 tokens) is longer than the model's context length (8 tokens)."},
    "TGI": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8. Given: 9 `inputs`"},
    "OpenAI, in words": {"message": "Your input exceeds the context window of this model.", "code": None},
    "xAI": {"message": "This model's maximum prompt length is 8 but the request contains 9 tokens."},
    "Groq": {"message": "Please reduce the length of the messages or completion."},
    "Moonshot": {"message": "Invalid request: Your request exceeded model token limit: 8"},
}


async def test_a_conversation_that_is_too_long_is_said_so_by_every_server(subtests: pytest.Subtests) -> None:
    async with asking(OPENAI) as (model, upstream):
        for server, error in OVERFLOWS.items():
            said = {"error": error}
            ways: dict[str, list[Step]] = {
                "by a status": [Refuse(400, said)],
                "in the stream": [OPENAI.begin, data(said)],
                "instead of a stream": [Refuse(200, said)],
                "in a field of its own": [b"error: %b\n\n" % json.dumps(error).encode()],
            }
            for way, steps in ways.items():
                with subtests.test(f"{server}, {way}"):
                    upstream.play(steps)
                    reply = await read(model)
                    assert reply.error is not None
                    assert (reply.error.code, reply.text) == ("context_too_long", "")


@pytest.mark.parametrize(
    ("dialect", "refusal"),
    [
        (ANTHROPIC, "input length and `max_tokens` exceed context limit: 9 + 8 > 8"),
        (GOOGLE, "The input token count exceeds the maximum number of tokens allowed 8."),
    ],
    ids=["anthropic", "google"],
)
async def test_the_vendors_say_it_in_several_ways(dialect: Dialect, refusal: str) -> None:
    body = json.loads(json.dumps(dialect.refusals["too long"].body))
    body["error"]["message"] = refusal
    async with asking(dialect, [Refuse(400, body)]) as (model, upstream):
        assert (error := (await read(model)).error) is not None
        assert error.code == "context_too_long"
        upstream.play([Refuse(413, {"error": {"type": "request_too_large", "message": "Request too large"}})])
        assert (error := (await read(model)).error) is not None
        assert error.code == "context_too_long"


async def test_a_rate_limit_is_none_for_the_conversation() -> None:
    said = {"message": "Request too large: tokens per min exceed the context limit", "code": "rate_limit_exceeded"}
    async with asking(OPENAI, [Refuse(429, {"error": said})]) as (model, _):
        assert (error := (await read(model)).error) is not None
    assert error.code == "model_rate_limited"


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
    async with asking(dialect, silence=0.5) as (model, upstream):
        for name, steps in held(dialect):
            with subtests.test(name):
                upstream.play(steps)
                reply = await read(model)
                await upstream.left.wait()
                assert reply.error is not None
                assert reply.error.code == "model_unavailable"
                assert reply.error.message == "127.0.0.1 was silent for 0.5 seconds"


async def test_a_comment_is_a_sign_of_life(dialect: Dialect) -> None:
    comments: list[Step] = [step for _ in range(4) for step in (Pause(0.3), b": still here\n\n")]
    steps = [dialect.begin, *comments, dialect.text("Late."), dialect.ends["whole"]]
    async with asking(dialect, steps, silence=1.0) as (model, _):
        assert await read(model) == ("Late.", Usage(7, 11), None)


async def test_a_line_that_never_ends_is_silence(dialect: Dialect) -> None:
    dribble: list[Step] = [step for _ in range(10) for step in (Pause(0.2), b"x")]
    async with asking(dialect, [dialect.begin, b"data: ", *dribble, Hold()], silence=1.0) as (model, upstream):
        reply = await read(model)
        await upstream.left.wait()
    assert reply.error is not None
    assert reply.error.message == "127.0.0.1 was silent for 1 seconds"


FLOODS: dict[str, tuple[list[Step], str]] = {
    "a line": ([b"data: ", *[b"x" * 65536] * 40], "127.0.0.1 sent an event of more than 1,048,576 bytes"),
    "an event": ([b"data: %b\n" % (b"x" * 65536)] * 40, "127.0.0.1 sent an event of more than 1,048,576 bytes"),
    "many lines": ([b"data:x\n" * 2000], "127.0.0.1 sent an event of more than 1,000 lines"),
    "a document": (
        [b"{", *[b"x" * 65536] * 40],
        "127.0.0.1 sent a document of more than 1,048,576 bytes in place of a stream",
    ),
    "an error": (
        [Refuse(400, b"x" * (2 << 20))],
        "127.0.0.1 sent a document of more than 1,048,576 bytes in place of a stream",
    ),
}


async def test_what_a_server_sends_is_bounded(dialect: Dialect, subtests: pytest.Subtests) -> None:
    async with asking(dialect) as (model, upstream):
        for name, (steps, message) in FLOODS.items():
            with subtests.test(name):
                upstream.play([*steps, Hold()])
                reply = await read(model)
                assert reply.error is not None
                assert (reply.error.code, reply.error.message) == ("model_error", message)


async def test_a_whole_response_is_bounded(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.chat.models.upstream.MAX_STREAM", 100_000)
    steps: list[Step] = [dialect.begin, *[dialect.text("x" * 1000)] * 200, Hold()]
    async with asking(dialect, steps) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.message == "127.0.0.1 sent more than 100,000 bytes for one reply"
    assert len(reply.text) > 10_000


async def test_comments_are_not_counted(dialect: Dialect) -> None:
    steps = [dialect.begin, *[b": %b\n" % (b"x" * 65536)] * 40, dialect.text("Yes."), dialect.ends["whole"]]
    async with asking(dialect, steps) as (model, _):
        assert (await read(model)).text == "Yes."


async def test_a_compressed_response_is_refused(dialect: Dialect) -> None:
    bomb = gzip.compress(b"x" * (1 << 20))
    async with asking(dialect, [Refuse(200, bomb, {"content-encoding": "gzip"})]) as (model, upstream):
        reply = await read(model)
        assert upstream.requests[0].headers["accept-encoding"] == "identity"
    assert reply.error is not None
    assert reply.error.message == "127.0.0.1 compressed its response (gzip), although it was asked not to"


async def test_a_text_may_have_any_separator_of_lines(dialect: Dialect) -> None:
    text = "a\u2028b\u2029c\u0085d"
    raw = dialect.text(text).decode().encode().decode("utf-8")
    for escape, character in (("\\u2028", "\u2028"), ("\\u2029", "\u2029"), ("\\u0085", "\u0085")):
        raw = raw.replace(escape, character)
    assert text in raw
    async with asking(dialect, [dialect.begin, raw.encode(), dialect.ends["whole"]]) as (model, _):
        assert (await read(model)).text == text


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
    assert reply.error.message == "cannot connect to 127.0.0.1"


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


@pytest.mark.parametrize("key", ["x", "none", "ollama"])
async def test_a_word_that_stands_for_no_key_is_not_hidden(key: str, caplog: pytest.LogCaptureFixture) -> None:
    error = {"error": {"message": "next: ollama has none, not even sk-0123456789"}}
    upstream = Upstream([Refuse(400, error)])
    async with serving(upstream, lifespan="off") as url:
        environment = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
        async with open_model("openai:m", environment, demo_words=1, demo_pace=0, timeout=10) as model:
            assert (await read(model)).error is not None
    assert "next: ollama has none, not even ***" in caplog.text


async def test_a_password_in_an_address_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    error = {"error": {"message": "no route to http://me:pw@host/v1"}}
    async with asking(OPENAI, [Refuse(400, error)]) as (model, _):
        assert (await read(model)).error is not None
    assert "no route to http://***@host/v1" in caplog.text


async def test_no_cause_is_sought_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "tailrace.chat.models")
    async with asking(OPENAI, [OPENAI.refusals["failed"]]) as (model, _):
        assert (await read(model)).error is not None
    assert caplog.records == []


async def test_a_pause_is_named_only_where_it_helps(dialect: Dialect) -> None:
    async with asking(dialect) as (model, upstream):
        for name in ("unauthorized", "unknown", "rejected"):
            upstream.play([dialect.refusals[name]._replace(headers={"retry-after": "7"})])
            reply = await read(model)
            assert reply.error is not None
            assert "pause" not in reply.error.message


async def test_a_page_in_place_of_a_reply_is_no_api(dialect: Dialect, caplog: pytest.LogCaptureFixture) -> None:
    page = Refuse(200, b"<!doctype html><p>It works!", {"content-type": "text/html; charset=utf-8"})
    async with asking(dialect, [page]) as (model, _):
        reply = await read(model)
    assert reply.error is not None
    assert reply.error.code == "model_error"
    address = next(name for name in dialect.environment("") if name.endswith("_BASE_URL"))
    assert reply.error.message == (f"127.0.0.1 answers with text/html, so it is not a model server: check {address}")
    assert len(caplog.records) == 1

"""The demo model: what it says, how it cuts it, and that the same conversation gets the same reply."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.chat.models.base import Message, ModelError, Piece, Reasoning, Usage
from tailrace.chat.models.demo import DemoModel, compose, cut
from tailrace.chat.models.demo_parts import PARTS
from tests.raw import BOUND


def conversation(*messages: str) -> list[Message]:
    """The messages of a user, each but the last with the reply that the demo model gives."""
    said: list[Message] = []
    for message in messages:
        if said:
            said.append(Message("assistant", compose(said)))
        said.append(Message("user", message))
    return said


async def test_the_pieces_are_the_reply_and_the_usage_counts_its_words() -> None:
    said = conversation("Tell me about cursors")
    *pieces, usage = [piece async for piece in DemoModel(pace=0).reply(said)]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    assert text == compose(said)
    assert usage == Usage(4, len(text.split()))


def test_it_says_what_it_is_in_every_reply() -> None:
    for said in (conversation("Hello"), conversation("Hello", "Are you an AI?"), conversation("short")):
        assert "demo model" in compose(said)
        assert "not an AI" in compose(said)
        assert "--model" in compose(said)
        assert "GENAI_MODEL_ID" in compose(said)


def test_it_answers_the_message() -> None:
    assert compose(conversation("Where is the end?")).startswith("You asked “Where is the end?”")
    assert compose(conversation("Good\n  morning")).startswith("You wrote “Good morning”: 2 words")
    assert compose(conversation("Hello")).startswith("You wrote “Hello”: one word")
    assert compose(conversation(" \n")).startswith("You sent a message without words.")
    assert f"“{'x' * 59}…”" in compose(conversation("x" * 100))


@pytest.mark.parametrize(
    ("messages", "remembers"),
    [
        (("What is a cursor?", "Hello", "More about that cursor"), "about “cursor”: message 1 was “What is a cursor?”"),
        (("Hello", "Good morning", "Hello"), "You sent this before, as message 1 of our 3."),
        (("Hello", "Good morning"), "This is message 2 of our conversation; the one before it was “Hello”."),
        (("", "Good morning"), "the one before it was “…”."),
    ],
)
def test_it_uses_the_conversation_so_far(messages: tuple[str, ...], remembers: str) -> None:
    assert remembers in compose(conversation(*messages))


def test_it_counts_the_turns() -> None:
    assert "in turn 3." in compose(conversation("One", "Two", "Three"))
    # Also where a turn has no reply.
    assert "in turn 2." in compose([Message("user", "One"), Message("user", "Two")])


def test_a_message_can_ask_for_what_it_wants() -> None:
    def reply(message: str) -> str:
        return compose(conversation(message))

    assert len(reply("Something long, please")) > 5000
    assert len(reply("A short word?")) < 600
    assert re.search(r"^\|.*\|\n\|[:-]", reply("A table"), re.MULTILINE)
    assert re.search(r"^```\w+\n.*^```$", reply("Show me code"), re.MULTILINE | re.DOTALL)
    assert re.search(r"^(1\.|-) ", reply("a list"), re.MULTILINE)
    assert re.search(r"^> ", reply("quote somebody"), re.MULTILINE)
    assert "```sql" in reply("code for a database")


def test_the_long_reply_has_everything_once() -> None:
    text = compose(conversation("long"))
    assert [part.text for part in PARTS if text.count(part.text) > 1] == []
    assert text.count("\n## ") >= 4
    assert len(set(re.findall(r"^```(\w+)$", text, re.MULTILINE))) == 4, "code in several languages"


def test_replies_vary_and_repeat_exactly() -> None:
    messages = [f"message {number}" for number in range(20)]
    replies = [compose(conversation(message)) for message in messages]
    assert len({reply.partition("\n\n")[2] for reply in replies}) > 10
    assert replies == [compose(conversation(message)) for message in messages]


@given(st.text(), st.floats(0.1, 40))
def test_pieces_put_together_are_the_text(text: str, words: float) -> None:
    pieces = list(cut(text, words))
    assert "".join(pieces) == (text if text.strip() else "")
    assert all(piece.strip() for piece in pieces)


def test_pieces_have_three_to_five_words_and_four_on_average() -> None:
    *sizes, _last = [len(piece.split()) for piece in cut(compose(conversation("long")), 4)]
    assert set(sizes) == {3, 4, 5}
    assert abs(sum(sizes) / len(sizes) - 4) < 0.05


async def test_the_pace_is_between_the_pieces() -> None:
    pace = 0.05
    loop = asyncio.get_running_loop()
    reply = DemoModel(words=1000, pace=pace).reply(conversation("long"))
    assert isinstance(await anext(reply), str)
    begun = loop.time()
    assert isinstance(await anext(reply), str)
    assert loop.time() - begun >= pace - 0.001
    await reply.aclose()


async def test_no_pace_is_before_the_first_piece() -> None:
    reply = DemoModel(pace=3600).reply(conversation("long"))
    async with asyncio.timeout(BOUND):
        assert isinstance(await anext(reply), str)
    await reply.aclose()


async def test_without_a_pace_others_may_still_run() -> None:
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    pieces = [piece async for piece in DemoModel(pace=0).reply(conversation("long"))]
    task.cancel()
    assert ran >= len(pieces) - 2


async def test_it_thinks_where_it_is_told_to() -> None:
    said = conversation("Think about a table")
    pieces = [piece async for piece in DemoModel(pace=0).reply(said)]
    kinds = [type(piece) for piece in pieces]
    assert kinds == sorted(kinds, key=[Reasoning, str, Usage].index)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == compose(said)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)).startswith("The message has 4 words")


async def test_it_fails_in_the_middle_when_it_is_told_to() -> None:
    pieces: list[Piece] = []

    async def read() -> None:
        async for piece in DemoModel(pace=0).reply(conversation("/fail")):
            pieces.append(piece)  # noqa: PERF401  # what came before the failure is wanted

    with pytest.raises(ModelError, match="/fail asks for it") as caught:
        await read()
    assert caught.value.code == "model_error"
    text = "".join(map(str, pieces))
    assert text
    assert compose(conversation("/fail")).startswith(text)
    assert "fail" in compose(conversation("do not /fail"))

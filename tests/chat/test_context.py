"""What of a conversation the model is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.chat.context import Context, fit_context
from tailrace.chat.models.base import Message
from tailrace.chat.store import Turn


def turn(number: int, message: str, reply: str) -> Turn:
    return Turn(number, "session", f"{number:022}", None, message, "m", 0.0, "complete", reply)


turns = st.lists(st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=20)), max_size=8).map(
    lambda pairs: [turn(number, *pair) for number, pair in enumerate(pairs)]
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

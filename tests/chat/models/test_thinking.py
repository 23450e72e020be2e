"""Thoughts in a text are told apart, however the text is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.chat.models.base import Reasoning
from tailrace.chat.models.thinking import MOST_SPACE, Thinking

# A whole text, its thoughts and what is left for the reader.
CASES = [
    ("42", "", "42"),
    ("", "", ""),
    (" \n", "", " \n"),
    ("  42\n", "", "  42\n"),
    ("<think>hm</think>42", "hm", "42"),
    ("<think>\nhm\n</think>\n\n42", "hm\n", "42"),
    ("\n <think>hm</think>42", "hm", "42"),
    ("<think></think>42", "", "42"),
    ("<think>\n\n</think>\n\n42", "", "42"),
    ("<think>hm</think>", "hm", ""),
    ("<think>hm</think>\n", "hm", ""),
    ("<think>hm", "hm", ""),
    ("<think>hm</thin", "hm</thin", ""),
    ("<think>a < b </ c </thin</think>42", "a < b </ c </thin", "42"),
    ("<think>hm</think>a <think>tag</think> b", "hm", "a <think>tag</think> b"),
    ("wrap it in <think> tags, like so", "", "wrap it in <think> tags, like so"),
    ("</think>42", "", "</think>42"),
    ("<thin", "", "<thin"),
    ("<thing>", "", "<thing>"),
    ("<THINK>hm</THINK>", "", "<THINK>hm</THINK>"),
    ("<<think>", "", "<<think>"),
]


def read(pieces: Iterable[str]) -> tuple[str, str]:
    """The thoughts and the text; no part of them is empty."""
    thinking = Thinking()
    parts = [part for piece in pieces for part in thinking.feed(piece)]
    parts += thinking.close()
    assert all(part.text if isinstance(part, Reasoning) else part for part in parts)
    thoughts = "".join(part.text for part in parts if isinstance(part, Reasoning))
    return thoughts, "".join(part for part in parts if isinstance(part, str))


def chunkings(text: str) -> Iterator[list[str]]:
    """The text whole, cut at every one and every two places, and letter by letter."""
    for count in (0, 1, 2):
        for cuts in combinations(range(1, len(text)), count):
            yield [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]
    yield list(text)


@pytest.mark.parametrize(("text", "thoughts", "reply"), CASES)
def test_thoughts_are_told_apart_at_every_cut(text: str, thoughts: str, reply: str) -> None:
    assert {read(pieces) for pieces in chunkings(text)} == {(thoughts, reply)}


@given(st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "a", " ", "\n", "<"]), max_size=12))
def test_nothing_but_tags_and_space_around_them_is_lost(pieces: list[str]) -> None:
    thoughts, reply = read(pieces)
    text = "".join(pieces)
    assert read([text]) == (thoughts, reply)
    if not text.lstrip().startswith("<think>"):
        assert (thoughts, reply) == ("", text)
    else:
        inside, _, after = text.lstrip().removeprefix("<think>").partition("</think>")
        assert (thoughts, reply) == (inside.lstrip(), after.lstrip())


def test_text_is_given_at_once() -> None:
    thinking = Thinking()
    assert list(thinking.feed("4")) == ["4"]
    assert list(thinking.feed("<")) == ["<"]


def test_thoughts_are_given_at_once() -> None:
    thinking = Thinking()
    assert list(thinking.feed("<think>h")) == [Reasoning("h")]
    assert list(thinking.feed("m</")) == [Reasoning("m")]
    assert list(thinking.feed("a")) == [Reasoning("</a")]


def test_white_space_is_not_held_back_without_end() -> None:
    thinking = Thinking()
    assert list(thinking.feed(" " * MOST_SPACE)) == []
    assert list(thinking.feed(" ")) == [" " * (MOST_SPACE + 1)]


def test_without_tags_everything_is_text() -> None:
    thinking = Thinking(tagged=False)
    assert list(thinking.feed("<think>hm</think>42")) == ["<think>hm</think>42"]
    assert list(thinking.close()) == []

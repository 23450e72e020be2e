"""Markdown that arrives in pieces, cut into blocks. What they look like is tested where they are rendered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it.token import Token

from tailrace import blocks
from tailrace.blocks import MAX_INLINE, PARSER, Block, Blocks

LINES = [
    "# a\n",
    "a\n",
    "\n",
    "- a\n",
    "  b\n",
    "1. a\n",
    "> a\n",
    "```\n",
    "~~~ x\n",
    "    ```\n",
    "| a | b |\n",
    "|---|---|\n",
    "a\r\n",
    "b\r",
    "---\n",
]


def cut(pieces: Iterable[str]) -> list[tuple[list[str], bool]]:
    """The types of the tokens of each block, and whether it goes on."""
    cutter = Blocks()
    found = [block for piece in pieces for block in cutter.feed(piece)] + cutter.flush()
    assert (cutter.pending, cutter.size, cutter.goes_on) == ("", 0, False)
    return [(kinds(block), block.goes_on) for block in found]


def kinds(block: Block) -> list[str]:
    return [f"{token.type} {token.content}" for token in block.tokens]


@given(st.lists(st.sampled_from(LINES), max_size=30).map("".join), st.integers(1, 9))
def test_the_blocks_depend_on_the_text_alone(text: str, size: int) -> None:
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert cut(pieces) == cut([text])


def test_a_block_before_a_fence_ends_where_the_fence_begins() -> None:
    cutter = Blocks()
    assert [kinds(block)[1] for block in cutter.feed("Code:\n```python\n")] == ["inline Code:"]
    assert (cutter.pending, cutter.size) == ("```python\n", 10)


@pytest.mark.parametrize("line", ["```x", "``", "    ```", "~~~", "x"])
def test_a_fence_ends_only_with_its_mark(line: str) -> None:
    cutter = Blocks()
    assert cutter.feed(f"```\n\n{line}\n\n") == []
    (block,) = cutter.feed("````\n")
    assert kinds(block) == [f"fence \n{line}\n\n"]


@pytest.mark.parametrize("pieces", [["a\r\n\r\nb"], ["a\r", "\n\r", "\nb"], ["a\r\rb"], ["a\r", "\r", "b"]])
def test_each_end_of_a_line_is_one(pieces: list[str]) -> None:
    assert [tokens[1] for tokens, _ in cut(pieces)] == ["inline a", "inline b"]


def test_a_cr_at_the_end_is_no_text() -> None:
    assert [tokens[1] for tokens, _ in cut(["a\r"])] == ["inline a"]


# Bounds


class Counting:
    """Counts the characters that are parsed."""

    def __init__(self) -> None:
        self.characters = 0

    def parse(self, text: str) -> list[Token]:
        self.characters += len(text)
        return PARSER.parse(text)


HOSTILE = {
    "items": "- a\n\n",
    "an item": "- a\n\n" + "  b\n\n" * 5_000,
    "indented": "    a\n\n",
    "fences": "```\n",
    "other fences": "```\n" + "~~~\n" * 5_000,
    "marks in a fence": "```\na\n" + "``` b\n\n" * 5_000,
    "an item with fences": "- ```\n  a\n  ```\n" + "  ```\n  a\n  ```\n\n" * 2_000,
    "quotes": "> a\n\n",
    "quoted fences": "> ```\n\n",
    "nested lists": "- " * 30 + "a\n\n",
    "empty lines": "\n \n",
    "rules": "---\n\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_parsed_grows_with_the_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text *= max(1, 20_000 // len(text))
    counting = Counting()
    monkeypatch.setattr(blocks, "PARSER", counting)
    cut([text])
    assert counting.characters < 40 * len(text)


def test_a_table_of_missing_cells_is_no_table() -> None:
    columns = 200
    head = "|" + "a|" * columns + "\n|" + "-|" * columns + "\n"
    assert PARSER.parse(head + "|\n" * 4)[0].type == "table_open"
    assert PARSER.parse(head + "|\n" * 400)[0].type == "paragraph_open"
    assert PARSER.parse(head + ("|" + "a|" * columns + "\n") * 40 + "\ntext")[0].type == "table_open"
    assert len(PARSER.parse("|a|b|\n|-|-|\n" + "|x|\n" * 1_000)) > 6_000


def test_a_very_long_paragraph_is_plain_text() -> None:
    def inside(text: str) -> list[Any]:
        tokens = PARSER.parse(text)[1].children
        assert tokens is not None
        return [token.type for token in tokens]

    short = "*a* " * (MAX_INLINE // 4)
    assert "em_open" in inside(short)
    assert inside(short + "*b*") == ["text"]

"""Markdown that comes in pieces, cut into blocks that no later piece can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Tags stay text, and so do definitions of links, which would have to be known before the text that uses them.
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")

LISTS = frozenset({"bullet_list_open", "ordered_list_open"})

# What an empty line ends. A list may go on after it, and so may code that is only indented.
_ENDED_BY_BLANK = frozenset({"paragraph_open", "heading_open", "hr", "table_open", "blockquote_open"})


@dataclass(frozen=True, slots=True)
class Block:
    """The tokens of a block. `goes_on` is set for items of a list whose first ones were a block before."""

    tokens: Sequence[Token]
    goes_on: bool = False


class Blocks:
    """Cuts a text into blocks. A block is given once it is known where it ends, which takes an empty line outside a
    fence and perhaps the line after it; of a list each item is given as soon as the next one has begun.

    `pending` is the text that was not given yet.
    """

    def __init__(self) -> None:
        self.pending = ""
        self._whole = 0  # characters of pending that are whole lines
        self._blank = False  # whether the last whole line is empty
        self._fence = ""  # what will close the fence that is open
        self._items = 0  # of the list that pending begins with, how many were given already
        self._number = 1  # and the number of its first item

    @property
    def goes_on(self) -> bool:
        """Whether what is pending begins with an item of a list whose first ones were given already."""
        return self._items > 0

    def feed(self, piece: str) -> list[Block]:
        """The blocks that end in this piece."""
        self.pending += piece
        given: list[Block] = []
        while (end := self.pending.find("\n", self._whole) + 1) > 0:
            line = self.pending[self._whole : end]
            self._whole = end
            if self._may_end_block(line):
                given += self._cut()
        return given

    def flush(self) -> list[Block]:
        """All that is left."""
        blocks = self._blocks(PARSER.parse(self.pending))
        self.pending = ""
        self._settle(0)
        return blocks

    def _may_end_block(self, line: str) -> bool:
        """Whether it is worth to parse what there is, which is not so at most lines."""
        was_blank, self._blank = self._blank, not line.strip()
        if self._fence:
            return line.lstrip().startswith(self._fence)
        return was_blank != self._blank

    def _cut(self) -> list[Block]:
        source = self.pending[: self._whole]
        tokens = PARSER.parse(source)
        lines = source.count("\n")
        self._fence = tokens[-1].markup if tokens and _is_open_fence(tokens[-1]) else ""
        blocks = self._blocks(tokens)
        if not blocks:
            self._drop(lines)
            return []
        last = blocks[-1].tokens
        if self._is_ended(last[0]):
            self._settle(0)
            self._drop(lines)
            return blocks
        start = _first_line(last[0])
        given = blocks[:-1]
        if given:
            self._settle(0)
        if last[0].type in LISTS:
            begun = [number for number, token in enumerate(last) if token.type == "list_item_open" and token.level == 1]
            if len(begun) > 1:
                given.append(Block([*last[: begun[-1]], last[-1]], blocks[-1].goes_on))
                self._settle(self._items + len(begun) - 1, int(last[0].attrs.get("start", 1)) + len(begun) - 1)
                start = _first_line(last[begun[-1]])
        self._drop(start)
        return given

    def _blocks(self, tokens: Sequence[Token]) -> list[Block]:
        blocks: list[Block] = []
        begin = 0
        for number, token in enumerate(tokens, 1):
            if token.level == 0 and token.nesting <= 0:
                blocks.append(Block(tokens[begin:number]))
                begin = number
        if blocks and self._items:
            first = blocks[0].tokens
            if first[0].type == "ordered_list_open":
                first[0].attrs["start"] = self._number
            blocks[0] = Block(first, goes_on=True)
        return blocks

    def _is_ended(self, token: Token) -> bool:
        """Whether the last block cannot go on in the next line."""
        if token.type == "fence":
            return not self._fence
        return self._blank and token.type in _ENDED_BY_BLANK

    def _settle(self, items: int, number: int = 1) -> None:
        self._items, self._number = items, number

    def _drop(self, lines: int) -> None:
        """Forget the first lines of what is pending."""
        position = 0
        for _ in range(lines):
            position = self.pending.index("\n", position) + 1
        self.pending = self.pending[position:]
        self._whole -= position


def _first_line(token: Token) -> int:
    assert token.map is not None, token
    return token.map[0]


def _is_open_fence(token: Token) -> bool:
    """Whether it is a fence, not inside of anything, that nothing has closed yet."""
    if token.type != "fence" or token.level:
        return False
    begin, end = token.map or (0, 0)
    return token.content.count("\n") == end - begin - 1  # else one line is the closing mark

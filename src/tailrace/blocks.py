"""Cut Markdown that arrives in pieces into blocks, each of which can be rendered by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

__all__ = ["PARSER", "Block", "Blocks"]

LISTS = frozenset({"bullet_list_open", "ordered_list_open"})

MAX_INLINE = 32 << 10
"""The most characters of a paragraph, a heading or a cell in which markup is looked for."""

MAX_MISSING = 1_000
"""The most cells of a table that its rows may leave out, besides two for each character of these rows."""

SMALL = 512
GROWTH = 8
"""Text that completed no block is parsed again once it is small, or an eighth longer. So the work is linear."""

# Blocks that end at an empty line. Lists and indented code may continue after one.
_ENDED_BY_BLANK = frozenset({"paragraph_open", "heading_open", "hr", "table_open", "blockquote_open"})

_DELIMITERS = re.compile(r"[-:|][-:|\s]*")


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse a table, unless nearly all of its cells are missing: a few bytes would become a megabyte of empty cells."""
    return (silent or not _is_hollow(state, start, end)) and table(state, start, end, silent)


def _is_hollow(state: StateBlock, start: int, end: int) -> bool:
    if start + 2 > end or _DELIMITERS.fullmatch(line := state.getLines(start + 1, start + 2, 0, False).strip()) is None:
        return False
    columns, missing = line.count("|") - 1, 0
    for number in range(start + 2, end):
        row = state.src[state.bMarks[number] : state.eMarks[number]]
        missing += max(0, columns - row.count("|")) - 2 * len(row)
        if missing > MAX_MISSING:
            return True
        if not row or row.isspace():
            break
    return False


def _bounded_inline(state: StateCore) -> None:
    """Parse the text within blocks, except for very long ones."""
    for token in state.tokens:
        if token.type != "inline":
            continue
        token.children = []
        if len(token.content) <= MAX_INLINE:
            state.md.inline.parse(token.content, state.md, state.env, token.children)
        else:
            token.children.append(Token("text", "", 0, content=token.content))


def _make_parser() -> MarkdownIt:
    # HTML remains text. So do link definitions, because a text can use them before it defines them.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    parser.core.ruler.at("inline", _bounded_inline)
    return parser


PARSER = _make_parser()
"""The parser of all Markdown here. It takes linear time, whatever the text."""


@dataclass(frozen=True, slots=True)
class Block:
    """The tokens of a block. `goes_on` is True for later items of a list that an earlier block began."""

    tokens: Sequence[Token]
    goes_on: bool = False

    @property
    def is_list(self) -> bool:
        return self.tokens[0].type in LISTS


class Blocks:
    """Cuts a text into blocks that no later piece can change.

    A block is complete when its end is known: at an empty line outside a fence, or at the line after it. Each item of a
    list is complete when the next one begins. The blocks depend on the text, and not on how it was cut into pieces.
    """

    def __init__(self) -> None:
        self.size = 0
        """The number of characters of the incomplete text."""
        self._lines: list[str] = []  # the whole lines of the incomplete text
        self._rest: list[str] = []  # the pieces of its last line
        self._half = ""  # a CR that may be the first half of a line's end
        self._parsed = 0  # the size of the incomplete text after it was last parsed
        self._blank = False  # True if the last whole line is empty
        self._fence = ""  # the shortest mark that closes the open fence
        self._items = 0  # the number of complete items, if the incomplete text continues a list
        self._number = 1  # the number of the first incomplete item of that list

    @property
    def pending(self) -> str:
        """The incomplete text."""
        return "".join(self._lines) + "".join(self._rest)

    @property
    def goes_on(self) -> bool:
        """True if the incomplete text begins with a later item of a list."""
        return self._items > 0

    def feed(self, piece: str) -> list[Block]:
        """Add a piece, and return the blocks that it completes."""
        *ends, rest = self._with_plain_ends(piece).split("\n")
        given: list[Block] = []
        for end in ends:
            line = "".join([*self._rest, end, "\n"])
            self._rest.clear()
            self._lines.append(line)
            self.size += len(end) + 1
            if self._may_end_block(line):
                given += self._cut()
        if rest:
            self._rest.append(rest)
            self.size += len(rest)
        return given

    def preview(self) -> list[Block]:
        """Return the incomplete text as blocks, as if it ended here."""
        return self._blocks(PARSER.parse(self.pending))

    def flush(self) -> list[Block]:
        """Return the remaining blocks at the end of the text."""
        blocks = self.preview()
        self._rest.clear()
        self._half = ""
        self._settle(0)
        self._drop(len(self._lines))
        return blocks

    def _with_plain_ends(self, piece: str) -> str:
        """Return a piece with LF at the ends of lines, where the text may have CR LF, or CR alone."""
        if not self._half and "\r" not in piece:
            return piece
        piece, self._half = self._half + piece, ""
        if piece.endswith("\r"):
            piece, self._half = piece[:-1], "\r"
        return piece.replace("\r\n", "\n").replace("\r", "\n")

    def _may_end_block(self, line: str) -> bool:
        """Tell whether a block may end at this line. If not, parsing would be wasted."""
        was_blank, self._blank = self._blank, not line.strip()
        if self._fence:
            return _closes(line, self._fence)
        if was_blank == self._blank and not line.lstrip(" ").startswith(("```", "~~~")):
            return False
        return (self.size - self._parsed) * GROWTH >= self._parsed - SMALL

    def _cut(self) -> list[Block]:
        tokens = PARSER.parse("".join(self._lines))
        self._fence = tokens[-1].markup if tokens and _is_open_fence(tokens[-1]) else ""
        blocks = self._blocks(tokens)
        if not blocks:
            self._drop(len(self._lines))
            return []
        last = blocks[-1].tokens
        if self._is_ended(last[0]):
            self._settle(0)
            self._drop(len(self._lines))
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
        """Tell whether the next line cannot belong to the last block."""
        if token.type == "fence":
            return not self._fence
        return self._blank and token.type in _ENDED_BY_BLANK

    def _settle(self, items: int, number: int = 1) -> None:
        self._items, self._number = items, number

    def _drop(self, lines: int) -> None:
        """Remove the first lines of the incomplete text."""
        del self._lines[:lines]
        self.size = self._parsed = sum(map(len, self._lines))


def _first_line(token: Token) -> int:
    assert token.map is not None, token
    return token.map[0]


def _is_open_fence(token: Token) -> bool:
    """Tell whether a token is an open fence at the top level."""
    if token.type != "fence" or token.level:
        return False
    begin, end = token.map or (0, 0)
    return token.content.count("\n") == end - begin - 1  # a closed fence has one more line, its end


def _closes(line: str, fence: str) -> bool:
    """Tell whether a line closes a fence at the top level."""
    mark = line.strip()
    indented = len(line) - len(line.lstrip(" ")) > 3
    return not indented and len(mark) >= len(fence) and mark == fence[0] * len(mark)

"""Render the blocks of a Markdown text as lines of a terminal.

The lines are plain enough to be copied, and contain all of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from markdown_it.token import Token
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import BlockQuote as RichBlockQuote
from rich.markdown import CodeBlock as RichCodeBlock
from rich.markdown import Heading as RichHeading
from rich.markdown import HorizontalRule as RichHorizontalRule
from rich.markdown import ListElement as RichListElement
from rich.markdown import ListItem as RichListItem
from rich.markdown import Markdown, MarkdownContext, MarkdownElement, TableRowElement
from rich.markdown import TableElement as RichTableElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ..text import safe_line

CODE_THEME = "ansi_dark"
"""A theme with the terminal's own colours."""

NARROWEST = 10
"""The least columns of a nested block, even if it extends beyond the edge of the terminal."""

CELL = 6
"""The least columns of a cell in a table."""

Lines = list[list[Segment]]

_IN_LINES = re.compile(r"[^\n\t]+")


class Heading(RichHeading):
    """A heading that is aligned to the left."""

    LEVEL_ALIGN: ClassVar[dict[str, Any]] = {}


class HorizontalRule(RichHorizontalRule):
    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(24, options.max_width), style="markdown.hr")


class CodeBlock(RichCodeBlock):
    """A code block with its fences. The terminal wraps long lines and shows tabs, so that both can be copied."""

    def __init__(self, lexer_name: str, theme: str) -> None:
        super().__init__(lexer_name, theme)
        self._inside = False

    def on_enter(self, context: MarkdownContext) -> None:
        super().on_enter(context)
        self._inside = len(list(context.stack)) > 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        name = "" if self.lexer_name == "text" else self.lexer_name
        mark = "`" * max(3, 1 + _longest_run(code))
        yield Text(f"{mark}{name}", style="dim", overflow="fold")
        # Keep tabs, because a Makefile does not work with spaces.
        text = Syntax("", self.lexer_name, theme=self.theme, tab_size=0).highlight(code)
        text.rstrip()
        if self._inside:
            # The terminal cannot indent the rest of a wrapped line.
            text.justify, text.no_wrap, text.overflow, text.tab_size = "left", False, "fold", 4
            yield text
        else:
            # Skip rich's layout, because it replaces tabs by spaces.
            yield from text.render(console, end="\n")
        yield Text(mark, style="dim")


class BlockQuote(RichBlockQuote):
    """A quotation with space between its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[MarkdownElement] = []

    def on_child_close(self, context: MarkdownContext, child: MarkdownElement) -> bool:
        self._parts.append(child)
        return False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update(width=max(NARROWEST, options.max_width - 2))
        mark = Segment("│ ", console.get_style("dim"))
        for number, element in enumerate(self._parts):
            if number:
                yield mark
                yield Segment.line()
            for line in console.render_lines(element, inner, style=self.style, pad=False):
                yield mark
                yield from line
                yield Segment.line()


class ListItem(RichListItem):
    """An item that does not depend on later items, so that it can be printed before they arrive."""

    def render_marked(self, console: Console, options: ConsoleOptions, mark: str) -> RenderResult:
        style = console.get_style("markdown.item.bullet")
        inner = options.update(width=max(NARROWEST, options.max_width - len(mark)))
        lines = console.render_lines(self.elements, inner, style=self.style, pad=False)
        for number, line in enumerate(lines or [[]]):
            yield Segment(mark, style) if number == 0 else Segment(" " * len(mark))
            yield from line
            yield Segment.line()


class ListElement(RichListElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, item in enumerate(self.items, 1 if self.list_start is None else self.list_start):
            assert isinstance(item, ListItem), item
            mark = "• " if self.list_type == "bullet_list_open" else f"{number}. "
            yield from item.render_marked(console, options, mark)


class TableElement(RichTableElement):
    """A table with a line below its head. On a narrow terminal, each cell has its own line."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [] if self.header is None or self.header.row is None else _cells(self.header.row)
        body = [] if self.body is None else [_cells(row) for row in self.body.rows]
        if len(names) * (CELL + 2) > options.max_width + 2:
            yield from _stacked(names, body)
            return
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, border_style="dim")
        for name in names:
            heading = name.copy()
            heading.stylize("bold")
            table.add_column(heading, overflow="fold")
        for cells in body:
            table.add_row(*cells)
        yield table


class ChatMarkdown(Markdown):
    """Renders the tokens of a block."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": Heading,
        "fence": CodeBlock,
        "code_block": CodeBlock,
        "blockquote_open": BlockQuote,
        "hr": HorizontalRule,
        "bullet_list_open": ListElement,
        "ordered_list_open": ListElement,
        "list_item_open": ListItem,
        "table_open": TableElement,
    }

    def __init__(self, tokens: Sequence[Token]) -> None:
        # A terminal hides the address of a hyperlink, which may differ from the address in the text.
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        for token in tokens:
            if token.children:
                token.children = list(_spoken(token.children))
        self.parsed = list(tokens)


def render(tokens: Sequence[Token], console: Console, width: int) -> Lines:
    """Turn tokens into lines, without empty lines around them and without trailing spaces."""
    options = console.options.update(width=max(1, width), height=None)
    segments = [
        segment if segment.text == "\n" else Segment(_harmless(segment.text), segment.style)
        for segment in console.render(ChatMarkdown(tokens), options)
    ]
    lines = [_without_end(line) for line in Segment.split_lines(segments)]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return lines


def _harmless(text: str) -> str:
    """Make a text harmless except for line breaks and tabs, because an HTML entity can be any character."""
    return _IN_LINES.sub(lambda found: safe_line(found[0]), text)


def _without_end(line: list[Segment]) -> list[Segment]:
    line = list(line)
    while line:
        text = line[-1].text.rstrip()
        if text:
            line[-1] = Segment(text, line[-1].style)
            break
        line.pop()
    return line


def _spoken(tokens: Iterable[Token]) -> Iterator[Token]:
    """Yield readable inline tokens: an image as its text and address, and an automatic link as its text alone."""
    for token in tokens:
        if token.type == "image":
            yield Token("text", "", 0, content=f"{token.content} ({token.attrs.get('src', '')})")
        elif token.info == "auto" and token.type in ("link_open", "link_close"):
            continue
        else:
            yield token


def _cells(row: TableRowElement) -> list[Text]:
    return [cell.content for cell in row.cells]


def _stacked(names: Sequence[Text], rows: Sequence[Sequence[Text]]) -> Iterator[Text]:
    """Yield a line for each cell, after the name of its column."""
    for number, cells in enumerate(rows):
        if number:
            yield Text()
        for name, cell in zip(names, cells, strict=False):
            yield Text.assemble((name.plain, "bold"), ": ", cell, overflow="fold")


def _longest_run(code: str) -> int:
    """Return the largest number of backquotes at the beginning of a line."""
    return max((len(line) - len(line.lstrip("`")) for line in map(str.lstrip, code.split("\n"))), default=0)

"""Render a reply's Markdown as HTML, block by block while the text arrives.

The HTML depends only on the text. It is safe to put into a page: the text's own HTML is shown as text, and whatever
the renderer makes passes an allow-list at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TypeAlias

import nh3
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.token import STANDARD_TYPES  # type: ignore[import-untyped]

from ..blocks import PARSER, Block, Blocks

OPEN = 8 << 10
"""The most characters of an incomplete block that are rendered. The rest is plain text until the block is complete."""

GROWTH = 8
"""An incomplete block is rendered again when it has grown by an eighth."""

REST = 512
"""The characters of an incomplete block by which its rest grows."""

MAX_HIGHLIGHTED = 64 << 10
"""The most characters of code that are highlighted."""

PIECE = 1_000
"""The most characters of code that are highlighted at a time.

A highlighter's time may grow with the cube of the length. The one for C takes 2 s for 4,000 slashes, in steps of up to
0.4 s that hold up the whole process, and would take hours for 64,000 (measured with Pygments 2.21).
"""

Pieces: TypeAlias = dict[tuple[str, str], str]
"""The HTML of pieces of code, by language and code."""

# C# is missing, because its highlighter takes 0.6 s for 500 short lines.
LANGUAGES = frozenset({
    "bash", "c", "c++", "console", "cpp", "css", "diff", "docker", "dockerfile", "go", "graphql",
    "html", "http", "ini", "java", "javascript", "js", "json", "jsx", "kotlin", "lua", "make", "makefile",
    "markdown", "md", "nginx", "perl", "php", "powershell", "ps1", "py", "python", "r", "rb", "rs", "ruby", "rust",
    "scala", "sh", "shell", "sql", "swift", "toml", "ts", "tsx", "typescript", "xml", "yaml", "yml", "zig", "zsh",
})  # fmt: skip

CLASSES = frozenset(filter(None, STANDARD_TYPES.values()))
"""The classes of highlighted code: Pygments' own short names."""

_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")

_TASKS = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}

_FORMATTER = HtmlFormatter(nowrap=True)

_PROSE = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "th", "td")

_CLEANER = nh3.Cleaner(
    tags={*_PROSE, "a", "br", "code", "div", "em", "hr", "li", "pre", "s", "span", "strong"}
    | {"table", "thead", "tbody", "tr"},
    attributes={"a": {"href", "title"}, "ol": {"start"}},
    tag_attribute_values={"div": {"role": {"region"}, "tabindex": {"0"}, "aria-label": {"Table"}}},
    set_tag_attribute_values={"a": {"target": "_blank"}, **{tag: {"dir": "auto"} for tag in _PROSE}},
    allowed_classes={
        "div": {"bar", "code", "table"},
        "span": {"lang", *CLASSES},
        "pre": {"rest"},
        "td": {"center", "right"},
        "th": {"center", "right"},
    },
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


class _HTML(RendererHTML):
    """Renders tokens. Its methods have the names of the tokens' types."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _code(tokens[idx].content, tokens[idx].info, env["pieces"])

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _code(tokens[idx].content, "", env["pieces"])

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="table" tabindex="0" role="region" aria-label="Table"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>\n"


_RENDERER = _HTML()


def _code(code: str, info: str, known: Pieces) -> str:
    """Return a block of code with a bar. A fence that was just opened is nothing until it has text."""
    if not code:
        return ""
    found = _LANGUAGE.match(info.strip())
    name = found[0] if found else ""
    bar = f'<div class="bar"><span class="lang">{escape(name)}</span></div>'
    return f'<div class="code">{bar}<pre><code>{_highlighted(code, name.lower(), known)}</code></pre></div>\n'


def _highlighted(code: str, name: str, known: Pieces) -> str:
    if name not in LANGUAGES or len(code) > MAX_HIGHLIGHTED:
        return escape(code)
    html = []
    for piece in _pieces(code):
        if (done := known.get((name, piece))) is None:
            done = known[name, piece] = _highlight_piece(piece, name)
        html.append(done)
    return "".join(html)


def _pieces(code: str) -> Iterator[str]:
    """Cut code into pieces, if possible at empty lines, where a string or a comment rarely goes on."""
    piece, blank = "", 0
    for line in code.splitlines(keepends=True):
        if len(piece) + len(line) > PIECE or blank > 1 or (blank and len(piece) > PIECE // 2):
            yield piece
            piece = ""
        piece += line
        blank = blank + 1 if line.isspace() else 0
    yield piece


def _highlight_piece(code: str, name: str) -> str:
    if len(code) > PIECE or code.isspace():
        return escape(code)
    return str(highlight(code, get_lexer_by_name(name, stripnl=False, ensurenl=False), _FORMATTER))


def _html(block: Block, known: Pieces) -> str:
    """Return the HTML of a block. Add to the known pieces of code those that were highlighted."""
    _mark_tasks(block.tokens)
    for token in block.tokens:
        if token.children:
            token.children = list(_without_images(token.children))
        if token.type in ("paragraph_open", "paragraph_close"):
            # A list is known to be loose only at its end. Spacing its items then would move them.
            token.hidden = False
        elif token.type in ("th_open", "td_open"):
            # A page's policy usually forbids styles in HTML.
            align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
            if align in ("center", "right"):
                token.attrs["class"] = align
    return _CLEANER.clean(_RENDERER.render(block.tokens, PARSER.options, {"pieces": known}))


def _mark_tasks(tokens: Sequence[Token]) -> None:
    """Show the boxes of tasks, which are the first characters of a list's items."""
    for item, _, line in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if item.type == "list_item_open" and line.children:
            first = line.children[0]
            if (box := _TASKS.get(first.content[:4])) and first.type == "text":
                first.content = box + first.content[4:]


def _without_images(tokens: Iterable[Token]) -> Iterator[Token]:
    """Yield images as links, because an image may be a counter on somebody else's server."""
    inside = 0
    for token in tokens:
        if token.type == "image":
            address = str(token.attrs["src"])
            text = Token("text", "", 0, content=token.content or address)
            link = Token("link_open", "a", 1, attrs={"href": address}), text, Token("link_close", "a", -1)
            yield from (text,) if inside else link
        else:
            inside += token.nesting if token.tag == "a" else 0
            yield token


def render(text: str) -> str:
    """Return the HTML of a whole text."""
    renderer = Renderer()
    blocks = renderer.feed(text) | renderer.close()
    return "".join(blocks[number] for number in sorted(blocks))


class Renderer:
    """Renders a text that arrives in pieces. Its methods return the blocks of HTML that changed, by their numbers.

    Numbers count from 1. A block with a known number replaces that block, and the others are new. A block may become
    empty: when a list ends, its first block becomes the whole list, and those of its later items become empty.
    """

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._next = 1  # the number of the first incomplete block
        self._shown: dict[int, str] = {}  # the incomplete blocks, and those that are empty since
        self._parts = 0  # how many blocks show the incomplete text
        self._seen = 0  # how much of it they show
        self._pieces: Pieces = {}  # the highlighted pieces of the incomplete text
        self._items: dict[int, str] = {}  # the complete items of a list that may go on

    def feed(self, text: str) -> dict[int, str]:
        """Add a piece of the text."""
        complete = self._complete(self._blocks.feed(text))
        if self._has_grown():
            self._show_incomplete(complete)
        return self._changed(complete)

    def close(self) -> dict[int, str]:
        """End the text. All blocks are complete then."""
        complete = self._complete(self._blocks.flush())
        self._end_list(complete)
        return self._changed(complete)

    def _complete(self, blocks: Sequence[Block]) -> dict[int, str]:
        complete: dict[int, str] = {}
        for block in blocks:
            if not block.goes_on:
                self._end_list(complete)
            complete[self._next] = html = _html(block, self._pieces)
            if block.is_list:
                self._items[self._next] = html
            self._next += 1
        if blocks or self._blocks.size < self._seen:  # empty lines go without a block
            self._seen = self._parts = 0
            self._pieces.clear()
        return complete

    def _end_list(self, complete: dict[int, str]) -> None:
        """Make one list of the complete items, each of which is a list by itself."""
        if len(self._items) > 1:
            lists = list(self._items.values())
            tag, end = lists[0][: lists[0].index(">") + 1], lists[0][lists[0].rindex("</") :]
            items = (each[each.index(">") + 1 : each.rindex("</")] for each in lists)
            complete |= dict.fromkeys(self._items, "")
            complete[min(self._items)] = "".join([tag, *items, end])
        self._items.clear()

    def _has_grown(self) -> bool:
        size = self._blocks.size
        return size - self._seen >= (max(1, self._seen // GROWTH) if size <= OPEN else REST)

    def _show_incomplete(self, blocks: dict[int, str]) -> None:
        """Add the incomplete text to the blocks, rendered. If it is long, add only what is new of it, as plain text."""
        if self._blocks.size <= OPEN:
            blocks[self._next] = "".join(_html(block, self._pieces) for block in self._blocks.preview())
            self._parts = 1
        else:
            rest = escape(self._blocks.pending[self._seen :])
            blocks[self._next + self._parts] = f'<pre class="rest" dir="auto">{rest}</pre>\n'
            self._parts += 1
        self._seen = self._blocks.size

    def _changed(self, blocks: dict[int, str]) -> dict[int, str]:
        """Return the blocks that differ from what was returned before, and as empty ones those that are gone."""
        gone = (number for number in self._shown if number >= self._next + self._parts)
        blocks = dict.fromkeys(gone, "") | blocks
        changed = {number: blocks[number] for number in sorted(blocks) if self._shown.get(number) != blocks[number]}
        self._shown = {number: html for number, html in (self._shown | changed).items() if number >= self._next}
        return changed

"""What is rendered of each kind of block."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment

from tailrace.blocks import PARSER, Block, Blocks
from tailrace.chat.models.demo_parts import PARTS
from tailrace.cli.terminal.markdown import ChatMarkdown, render


def lines(source: str, width: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    return ["".join(segment.text for segment in line) for line in render(PARSER.parse(source), console, width)]


TABLE = """\
| name | *what* | n |
|------|--------|--:|
| one | `log` | 1 |
| two | a reader | 2 |
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# One\n\n### Two", ["One", "", "Two"]),
        ("One  \ntwo\nthree **four**", ["One", "two three four"]),
        ("----", ["─" * 24]),
        ("```python\nx = 1\n\ny\n```", ["```python", "x = 1", "", "y", "```"]),
        ("````\n```\n````", ["````", "```", "````"]),
        ("    x", ["```", "x", "```"]),
        ("```make\nall:\n\tcc\n```", ["```make", "all:", "\tcc", "```"]),
        ("- ```\n  all:\n  \tcc\n  ```", ["• ```", "  all:", "      cc", "  ```"]),
        ("a&#9;b &#x2028; c", ["a       b   c"]),
        ("> One\n>\n> two", ["│ One", "│", "│ two"]),
        ("- one\n- two\n  - three", ["• one", "• two", "  • three"]),
        ("9. one\n10. two\n\n    more", ["9. one", "10. two", "    more"]),
        ("-", ["•"]),
        ("![a cat](cat.png)", ["a cat (cat.png)"]),
        ("[text](http://x.y)", ["text (http://x.y)"]),
        ("<http://x.y>", ["http://x.y"]),
        ("[one]: http://x.y", ["[one]: http://x.y"]),
        ("<b>no</b> &#27;[31m", ["<b>no</b> \ufffd[31m"]),
        ("One\n\n&nbsp;", ["One"]),
        (TABLE, ["name   what       n", "───────────────────", "one    log        1", "two    a reader   2"]),
    ],
)
def test_each_kind_of_block(source: str, expected: list[str]) -> None:
    assert lines(source) == expected


def test_a_table_without_room_has_a_line_for_each_cell() -> None:
    assert lines(TABLE, 20) == ["name: one", "what: log", "n: 1", "", "name: two", "what: a reader", "n: 2"]


def test_code_is_left_to_the_terminal_unless_it_stands_inside_of_something() -> None:
    code = "x" * 50
    assert lines(f"```\n{code}\n```") == ["```", code, "```"]
    assert lines(f"> ```\n> {code}\n> ```") == ["│ ```", f"│ {code[:38]}", f"│ {code[38:]}", "│ ```"]


def test_nothing_is_no_line() -> None:
    assert lines("") == []
    assert lines("<!-- -->\n") == ["<!-- -->"]


TEXTS = {
    "paragraphs": "One\nand on.\n\n\n\nTwo *and* `three`.\n",
    "headings": "# A\ntext\n## B\n\nSetext\n===\nx\n\nline\n---\n\nend",
    "rule": "a\n\n---\nb\n***\n\nc",
    "fence": "Code:\n```python\ndef f():\n\n    return 1\n\n\n```\nAfter.\n\n~~~\nx\n\n```\n~~~\n",
    "open-fence": "Code:\n\n````sh\nls\n\n```\nx\n\n",
    "fence-with-marks": "```\na\n``` b\n\nc\n   ```\n\nd",
    "indented": "a\n\n    code\n\n    more\n\n      still\n\nb\n",
    "tight-list": "- a\n- b\n  - c\n  - d\n- e\n\nend",
    "loose-list": "1. a\n\n2. b\n\n   more of b\n\n   - c\n\n   - d\n3. e\n\n\nend\n\n1. other",
    "ones": "1. a\n1. b\n\n1. c\n\n1. d\n",
    "wide-numbers": "8. a\n9. b\n10. c\n\n11. d",
    "two-lists": "- a\n\n- b\n* c\n\n* d\n\n1) e\n2. f\n\n3. g",
    "list-or-not": "- a\n\n-x\n\n1. a\n\n2\n\n3. b\n\n- a\n\n---\n\n- b\n- - -\n",
    "empty-items": "-\n- a\n-\n\n- b\n\n-\n\n\n- c",
    "list-with-code": "1. **Do**\n\n   ```sh\n   ls\n\n   pwd\n   ```\n\n2. Then\n\n   ```\n   open\n\n3. x\n",
    "list-with-quote": "- a\n\n  > q\n\n  > r\n- b\n  > s\nlazy\n\nend",
    "quotes": "> a\n> b\n\n> c\nlazy\n>\n> - d\n>   > e\n\nf",
    "quoted-fence": "> ```\n> x\n\ny\n\nz\n",
    "table": "| a | b |\n|:--|--:|\n| 1 | 2 |\n| `x` | **y** |\n\n| c |\n|---|\n\nend",
    "wide-table": "|a|b|c|d|e|f|g|\n|-|-|-|-|-|-|-|\n|1|2|3|4|5|6|7|\n|8|9|10|11|12|13|14|\n",
    "links": "[a](http://x) <http://y>\n\n[b][1] ![pic](z.png)\n\n[1]: http://later\n\nend [b][1]",
    "tags": "<div>\nkept\n\n</div>\n<think>a</think>\n\n<!-- c -->\n\nx<br>y",
    "emphasis-across": "**a\n\nb** ~~c\nd~~\n\n`e\n\nf`",
    "wide": "日本語のテキスト\n\n- 👩‍👩‍👧 family\n\n| 日本 | b |\n|---|---|\n| 語 | c |\n",
    "blank": "\n\n  \n",
    "blanks-first": "\n\n\n- a\n",
    "spaces": "a  \nb\\\nc   \n\n \t \nd",
    **{f"demo-{number}": part.text for number, part in enumerate(PARTS)},
    "demo": "\n\n".join(part.text for part in PARTS),
}


def plain(lines: Iterable[list[Segment]]) -> list[str]:
    return ["".join(segment.text for segment in line) for line in lines]


def in_one(text: str, console: Console) -> list[str]:
    """What rich makes of the whole text, without spaces at the ends of lines and without empty lines around it.

    An empty block takes an empty line there.
    """
    with console.capture() as capture:
        console.print(ChatMarkdown(PARSER.parse(text)), crop=False, soft_wrap=False)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).strip("\n").split("\n")


class InPieces:
    """What is printed of a text in pieces. Most blocks come again and again, and are rendered once."""

    def __init__(self, width: int) -> None:
        self._console = Console(width=width)
        self._rendered: dict[tuple[object, ...], list[str]] = {}

    def __call__(self, pieces: Iterable[str]) -> list[str]:
        blocks = Blocks()
        found = [block for piece in pieces for block in blocks.feed(piece)]
        lines: list[str] = []
        for block in found + blocks.flush():
            rendered = self._render(block)
            lines += [""] if rendered and lines and not block.goes_on else []
            lines += rendered
        assert blocks.pending == ""
        return lines or [""]

    def _render(self, block: Block) -> list[str]:
        key = tuple((token.type, token.level, token.info, token.content, str(token.attrs)) for token in block.tokens)
        if key not in self._rendered:
            self._rendered[key] = plain(render(block.tokens, self._console, self._console.width))
        return self._rendered[key]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_printed_in_pieces_is_what_the_whole_would_be(text: str) -> None:
    in_pieces = InPieces(80)
    expected = in_one(text, Console(width=80))
    assert in_pieces([text]) == expected
    assert in_pieces(text) == expected
    for cut in range(0, len(text), 1 if len(text) < 400 else 97):
        assert in_pieces([text[:cut], text[cut:]]) == expected


def test_an_item_of_a_list_goes_on() -> None:
    blocks = Blocks()
    assert [block.goes_on for block in blocks.feed("- one\n- two\n")] == []
    blocks.feed("\n")
    assert (blocks.pending, blocks.goes_on) == ("- two\n\n", True)
    blocks.feed("Text\n")
    blocks.feed("\n")
    assert (blocks.pending, blocks.goes_on) == ("", False)


MARKDOWN = st.lists(
    st.sampled_from(["- ", "1. ", "> ", "    ", "  ", "```", "~~~", "|", "|-|", "#", "*", "a", "b `c`", "<b>", "\n"]),
    max_size=30,
).map("".join)


@given(MARKDOWN, st.integers(1, 5), st.sampled_from([1, 7, 40]))
def test_whatever_is_written_is_printed_the_same_in_pieces(text: str, size: int, width: int) -> None:
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert squashed(InPieces(width)(pieces)) == squashed(in_one(text, Console(width=width)))


def squashed(lines: list[str]) -> list[str]:
    """With one empty line where there are several."""
    return [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]

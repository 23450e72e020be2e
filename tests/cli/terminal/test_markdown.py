"""What is rendered of each kind of block."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tailrace.cli.terminal.blocks import PARSER
from tailrace.cli.terminal.markdown import render


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

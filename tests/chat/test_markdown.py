"""Replies as HTML: what each kind of block becomes, what is let through, and how much work it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.chat import markdown
from tailrace.chat.markdown import CLASSES, MAX_HIGHLIGHTED, OPEN, PIECE, REST, Renderer, render
from tailrace.chat.models.demo_parts import PARTS


def code(inside: str, name: str = "") -> str:
    bar = f'<div class="bar"><span class="lang">{name}</span></div>'
    return f'<div class="code">{bar}<pre><code>{inside}</code></pre></div>\n'


def link(address: str, text: str) -> str:
    return f'<p dir="auto"><a href="{address}" target="_blank" rel="noopener noreferrer nofollow">{text}</a></p>\n'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# a", '<h1 dir="auto">a</h1>\n'),
        (
            "*a* **b** ~~c~~ `d`  \ne",
            '<p dir="auto"><em>a</em> <strong>b</strong> <s>c</s> <code>d</code><br>\ne</p>\n',
        ),
        ("> a", '<blockquote dir="auto">\n<p dir="auto">a</p>\n</blockquote>\n'),
        ("---", "<hr>\n"),
        ("3. a", '<ol start="3" dir="auto">\n<li>\n<p dir="auto">a</p>\n</li>\n</ol>\n'),
        ("```\na<b\n```", code("a&lt;b\n")),
        ("```None\na\n```", code("a\n", "None")),
        ("```{x='1'}\na\n```", code("a\n")),
        ("    a", code("a\n")),
        ("```python\n```", ""),
        ("", ""),
        (
            "|a|b|\n|:-:|--:|\n|1||",
            '<div class="table" tabindex="0" role="region" aria-label="Table"><table>\n<thead>\n<tr>\n'
            '<th class="center" dir="auto">a</th>\n<th class="right" dir="auto">b</th>\n</tr>\n</thead>\n'
            '<tbody>\n<tr>\n<td class="center" dir="auto">1</td>\n<td class="right" dir="auto"></td>\n'
            "</tr>\n</tbody>\n</table></div>\n",
        ),
        ("[a](https://b.c/?d=1&e)", link("https://b.c/?d=1&amp;e", "a")),
        ("<mailto:a@b.c>", link("mailto:a@b.c", "mailto:a@b.c")),
        ("![a](https://b.c/d.png)", link("https://b.c/d.png", "a")),
        ("![](https://b.c/d.png)", link("https://b.c/d.png", "https://b.c/d.png")),
        ("[![a](d.png)](https://b.c)", link("https://b.c", "a")),
    ],
)
def test_each_kind_of_block(text: str, html: str) -> None:
    assert render(text) == html


# Safety

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<style>*{}</style><iframe src=//a.b>",
    "[a](javascript:alert(1)) [b](JaVa&#x73;cript:alert(1)) [c](java\tscript:alert(1)) [d](<java script:alert(1)>)",
    "[a](data:text/html,x) [b](vbscript:x) [c](file:///etc/passwd) [d](//a.b) [e](/stop) [f](blob:x)",
    "<javascript:alert(1)>",
    '[a](https://b.c "x\\" onclick=alert(1)")',
    "![a](javascript:alert(1)) ![b](data:image/svg+xml,x)",
    '![a" onerror="alert(1)](https://b.c/"onerror="x)',
    '```"><script>alert(1)</script>\nx\n```',
    "```html\n<script>alert(1)</script>\n```",
    "```python\n'</code></pre><script>alert(1)</script>'\n```",
    '|a" onclick="x|\n|-|\n|<svg onload=x>|',
    "<a id=send href=x>a</a> <form action=//a.b><input name=x>",
    "<!--\n\n--><script>x</script> ]]> <![CDATA[ <?php ?>",
    "&lt;script&gt; &#60;script&#62; &#x0;\x00\u202e",
]

# A start tag that is allowed, with the attributes in the order in which they are written.
TAG = re.compile(
    r'<(?:(?:p|h[1-6]|ul|blockquote)(?: dir="auto")|ol(?: start="\d+")? dir="auto"|t[hd](?: class="(?:center|right)")? '
    r'dir="auto"|a(?: href="(?:https?:|mailto:)[^"<>]*")?(?: title="[^"<>]*")? target="_blank" '
    r'rel="noopener noreferrer nofollow"|(?:br|code|em|hr|li|pre|s|strong|table|thead|tbody|tr|span)|'
    r'div class="(?:code|bar)"|div class="table" tabindex="0" role="region" aria-label="Table"|'
    r'span class="(?:\w+)"|pre class="rest" dir="auto")>'
)


def is_safe(html: str) -> bool:
    """True if there are no tags but those that are expected, with their attributes."""
    without = re.sub(r"</\w+>", "", TAG.sub("", html))
    classes = set(re.findall(r'<span class="([^"]*)"', html))
    return "<" not in without and classes <= {"lang", *CLASSES}


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_of_a_text_acts_in_a_page(text: str) -> None:
    assert is_safe(render(text))
    assert is_safe(render(f"- {text}\n\n- > {text}\n"))
    renderer = Renderer()
    for piece in text:
        assert all(map(is_safe, renderer.feed(piece).values()))
    assert all(map(is_safe, renderer.close().values()))


@given(st.lists(st.sampled_from([*ATTACKS, "\n", "\n\n", "- ", "> ", "```js\n", "|", "|-|", "*", "[", "](", ")"])))
def test_no_mixture_of_attacks_acts_in_a_page(parts: list[str]) -> None:
    assert is_safe(render("".join(parts)))


# In pieces


def follow(pieces: Iterable[str]) -> list[str]:
    """The blocks that a page shows in the end."""
    renderer = Renderer()
    shown: dict[int, str] = {}
    for changed in (*map(renderer.feed, pieces), renderer.close()):
        assert all(shown.get(number) != html for number, html in changed.items())
        shown |= changed
        assert sorted(shown) == list(range(1, len(shown) + 1)), "new blocks have the next numbers"
    return [shown[number] for number in sorted(shown)]


def in_pieces(text: str, size: int) -> list[str]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


DEMO = "\n\n".join(part.text for part in PARTS)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1_000])
def test_the_html_depends_on_the_text_alone(size: int) -> None:
    assert "".join(follow(in_pieces(DEMO, size))) == render(DEMO)


PIECES = [
    "- a",
    "1. b",
    "\n",
    "\n\n",
    "  ",
    "> ",
    "```\n",
    "```python\n",
    "|a|\n|-|\n",
    "# ",
    "c *d* ",
    "\r\n",
    "x" * 200,
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.integers(1, 60))
def test_the_html_of_any_text_depends_on_the_text_alone(text: str, size: int) -> None:
    assert "".join(follow(in_pieces(text, size))) == render(text)


def test_a_text_that_is_cut_anywhere_is_the_same() -> None:
    text = "a\n\n1. b\n\n2. c\n   ```js\n   d\n   ```\n\n> e\n\n|f|\n|-|\n|g|\n"
    whole = render(text)
    assert all("".join(follow([text[:at], text[at:]])) == whole for at in range(len(text)))


def test_only_what_changes_is_returned() -> None:
    renderer = Renderer()
    first, second = '<p dir="auto">a</p>\n', '<p dir="auto">b</p>\n'
    assert renderer.feed("a") == {1: first}
    assert renderer.feed("\n\n") == {}
    assert renderer.feed("b") == {2: second}
    assert renderer.feed(" ") == renderer.feed("") == {}
    assert renderer.close() == renderer.close() == {}


def test_a_fence_is_nothing_until_it_has_text() -> None:
    renderer = Renderer()
    assert set(renderer.feed("```").values()) <= {""}
    assert set(renderer.feed("python\n").values()) <= {""}
    assert list(renderer.feed("x").values()) == [code('<span class="n">x</span>\n', "python")]


def test_the_items_of_a_list_become_one_list_at_its_end() -> None:
    renderer = Renderer()
    assert list(renderer.feed("1. a\n\n2. b\n\n3. c\n\n")) == [1, 2, 3]
    changed = renderer.feed("d\n\n")
    assert changed[1].count("<ol") == 1
    assert changed[1].count("<li>") == 3
    assert (changed[2], changed[3]) == ("", "")
    assert changed[4] == '<p dir="auto">d</p>\n'


def test_a_long_incomplete_block_grows_as_plain_text() -> None:
    renderer = Renderer()
    first = renderer.feed("```python\n" + "x = 1\n" * 1_000)
    assert list(first) == [1]
    rest: list[str] = []
    assert list(renderer.feed("y < 2\n" * (OPEN // 6))) == [2]
    for _ in range(3):
        rest += renderer.feed("z" * REST + "\n").values()
    assert rest == [f'<pre class="rest" dir="auto">{"z" * REST}\n</pre>\n'] * 3
    last = renderer.feed("```\n")
    assert last[1].count('class="code"') == 1
    assert [last[number] for number in sorted(last)[1:]] == [""] * 4


# Work


class Counter:
    """Counts the characters that a function is called with."""

    def __init__(self, function: object) -> None:
        self.function = function
        self.characters = 0

    def __call__(self, text: str, *rest: object) -> object:
        self.characters += len(text)
        return self.function(text, *rest)  # type: ignore[operator]


def work(pieces: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The characters of code that are highlighted, and the characters of HTML that are returned."""
    with monkeypatch.context() as patch:
        lexed = Counter(markdown._highlight_piece)
        patch.setattr(markdown, "_highlight_piece", lexed)
        renderer = Renderer()
        size = sum(len(html) for piece in pieces for html in renderer.feed(piece).values())
        return lexed.characters, size + sum(map(len, renderer.close().values()))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 4_000,
        "word\n" * 4_000,
        "- a\n\n" * 4_000,
        "> " * 10_000,
        "```python\n" + "x = 'y'\n" * 3_000,
        "|a" * 9_000,
    ],
    ids=["line", "lines", "list", "quote", "code", "table"],
)
def test_work_and_html_grow_with_the_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lexed, size = work(in_pieces(text, 20), monkeypatch)
    assert lexed < 15 * len(text)
    assert size < 60 * len(text)


def test_very_long_code_is_not_highlighted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "```python\n" + "x = 1\n" * (MAX_HIGHLIGHTED // 6 + 1)
    assert work([text], monkeypatch)[0] == 0
    assert '<span class="n">' not in render(text)


def test_code_is_highlighted_in_short_pieces() -> None:
    lines = [f"x{number} = '''y'''\n" + "\n" * (number % 4) for number in range(500)]
    pieces = list(markdown._pieces("".join(lines) + "z" * 2 * PIECE))
    assert "".join(pieces) == "".join(lines) + "z" * 2 * PIECE
    assert max(map(len, pieces[:-1])) <= PIECE
    assert markdown._highlight_piece(pieces[-1], "python") == pieces[-1]
    assert markdown._highlight_piece("\n \n", "python") == "\n \n"


@pytest.mark.parametrize("name", sorted(markdown.LANGUAGES))
def test_every_language_is_known(name: str) -> None:
    assert f'<span class="lang">{name}</span>' in render(f"```{name}\nx = 1\n```")

"""The HTML and the scripts of streaming forms. `tests/system/test_widgets.py` uses them in a browser."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser

import pytest
from markupsafe import Markup
from starlette.datastructures import URL

from tailrace import get_streaming_html, get_streaming_js
from tests.js.driving import NODE

HOSTILE = [
    *('a"b', "a'b", "a<b>&amp;", "</script><script>x</script>", "</SCRIPT >", "<!--<script>", "]]>", "é🜁", "\u2028"),
    *("a b", "\\", "a\rb\nc\x01", "${x}`"),
]


class Elements(HTMLParser):
    """Keeps the elements of a text with their attributes, and the texts in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_id_and_a_label_are_only_text(text: str) -> None:
    html = Elements(get_streaming_html(text, text))
    plain = Elements(get_streaming_html("id", "label"))
    assert [tag for tag, _ in html.found] == [tag for tag, _ in plain.found]
    assert html.found[0] == ("form", {"id": text, "class": "tailrace-form", "method": "post"})
    assert html.texts[1] == f"{text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_script_has_its_arguments_as_literals(text: str) -> None:
    script = get_streaming_js(text, text, module=f"/{text}")
    specifier, form_id, endpoint = re.findall(r'"((?:[^"\\]|\\.)*)"', script.partition("\n")[2])
    assert [json.loads(f'"{literal}"') for literal in (specifier, form_id, endpoint)] == [f"/{text}", text, text]
    begin, body, end = re.split(r"^(.*\n)(?=</script>\n$)", script, maxsplit=1, flags=re.DOTALL | re.MULTILINE)
    assert (begin, end) == ("", "</script>\n")
    assert re.search("[<>&\u2028]", body.removeprefix('<script type="module">')) is None


def test_arguments_may_be_subclasses_of_str_and_urls() -> None:
    assert get_streaming_html(Markup("a"), Markup("<b>&</b>")) == get_streaming_html("a", "<b>&</b>")
    script = get_streaming_js(Markup("a"), URL("http://a.example/b"), module=URL("/js/widget.js"))  # type: ignore[arg-type]
    assert script == get_streaming_js("a", "http://a.example/b", module="/js/widget.js")


def test_with_a_module_the_script_is_two_lines() -> None:
    assert get_streaming_js("ask", "/ask", nonce="a+/_-9==", module="/js/widget.js") == (
        '<script type="module" nonce="a+/_-9==">\n'
        'import { streamForm } from "/js/widget.js";\n'
        'streamForm("ask", { endpoint: "/ask" });\n'
        "</script>\n"
    )


def test_without_a_module_the_script_contains_what_a_form_needs() -> None:
    script = get_streaming_js("ask", "/ask")
    assert script.startswith('<script type="module">\n')
    declared = re.findall(r"^(?:async )?(?:class|function) (\w+)", script, re.MULTILINE)
    # Each class comes after its base.
    needed = ("TailraceError", "StreamLost", "SSEDecoder", "Reader", "Stream", "Widget")
    assert [name for name in declared if name in needed] == list(needed)
    assert "Room" not in declared
    assert re.search(r"^(?:import|export) |/\*|(?:^| )//|^\s|\n\n", script, re.MULTILINE) is None
    assert len(script.encode()) < 58_000
    # Each of these would end the script too early, or hide its end.
    assert [script.lower().count(text) for text in ("</script", "<script", "<!--")] == [1, 1, 0]


def test_no_two_modules_have_the_same_name_for_something() -> None:
    """The script has all names in one scope, and Node would refuse the second."""
    script = get_streaming_js("ask", "/ask").partition("\n")[2].removesuffix("</script>\n")
    command = [str(NODE), "--check", "--input-type=module"]
    ran = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("nonce", ["", "a b", 'a"b', "a=b", "===", "é", "a\n", "<"])
def test_a_nonce_has_the_characters_of_base64(nonce: str) -> None:
    with pytest.raises(ValueError, match="expected a nonce of base64 characters, but got"):
        get_streaming_js("ask", "/ask", nonce=nonce)


@pytest.mark.parametrize("form_id", ["", "a\0b"])
def test_an_id_that_no_element_can_have_is_refused(form_id: str) -> None:
    with pytest.raises(ValueError, match="expected an id of at least one character and without NUL, but got"):
        get_streaming_html(form_id, "Label")
    with pytest.raises(ValueError, match="expected an id of at least one character and without NUL, but got"):
        get_streaming_js(form_id, "/ask")


@pytest.mark.parametrize("module", ["widget.js", "", "js/widget.js", "data:text/javascript,1", "javascript:1"])
def test_a_module_that_a_browser_would_not_load_is_refused(module: str) -> None:
    with pytest.raises(ValueError, match=r"expected a module's address that begins with /, ./, ../ or https://"):
        get_streaming_js("ask", "/ask", module=module)

"""The HTML of stored messages: what is kept, and how much is rendered at once."""

from __future__ import annotations

import pytest

from tailrace import Engine
from tailrace.chat import rendering
from tailrace.chat.rendering import Cache, Rendering


def test_a_cache_keeps_what_was_used_last() -> None:
    cache = Cache(10)
    for text in "abc":
        cache.put(text, text * 3)
    assert cache.get("a") == "aaa"
    cache.put("d", "ü")
    cache.put("e", "eeeee")
    assert [cache.get(text) for text in "abcde"] == ["aaa", None, None, "ü", "eeeee"]
    cache.put("e", "ee")
    assert cache.room == 3
    cache.put("f", "f" * 11)
    assert cache.get("f") is None
    assert cache.room == 10


async def test_the_newest_texts_are_rendered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "PAGE", 5)
    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        assert await made.html_of(["aaaa", "b", "cc"]) == [None, '<p dir="auto">b</p>\n', '<p dir="auto">cc</p>\n']
    await engine.aclose()


async def test_a_text_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def render(text: str) -> str:
        texts.append(text)
        return text.upper()

    monkeypatch.setattr("tailrace.chat.markdown.render", render)
    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        assert await made.html_of(["a", "b", "a"]) == ["A", "B", "A"]
        assert await made.html_of(["a", "b"]) == ["A", "B"]
    await engine.aclose()
    assert sorted(texts) == ["a", "b"]

"""Thoughts that a model writes between tags in its text, as servers without a parser of their own pass them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .base import Reasoning

OPEN, CLOSE = "<think>", "</think>"

MOST_SPACE = 1_000
"""White space in front of the first word that is held back until it is known what follows."""


class Thinking:
    """Separates thoughts from text, however the pieces are cut.

    Only a reply that begins with `<think>` has thoughts, up to the first `</think>`. Anywhere else the tags are
    text, as in an answer about them. White space around the tags belongs to neither. Ollama reads replies the same
    way.
    """

    def __init__(self, *, tagged: bool = True) -> None:
        """Without `tagged` everything is text."""
        self._held = ""
        self._step: Callable[[str], Iterator[str | Reasoning]] = self._begin if tagged else self._write

    def feed(self, text: str) -> Iterator[str | Reasoning]:
        """What a piece adds. The beginning of what may be a tag is held back until the next piece."""
        held, self._held = self._held, ""
        return self._step(held + text)

    def close(self) -> Iterator[str | Reasoning]:
        """What is still held back when the reply ends: no tag after all."""
        if self._held:
            yield Reasoning(self._held) if self._step == self._think else self._held

    def _begin(self, text: str) -> Iterator[str | Reasoning]:
        start = text.lstrip()
        if start.startswith(OPEN):
            self._step = self._skip_to_thoughts
            yield from self._step(start.removeprefix(OPEN))
        elif OPEN.startswith(start) and len(text) <= MOST_SPACE:
            self._held = text
        else:
            self._step = self._write
            yield from self._step(text)

    def _skip_to_thoughts(self, text: str) -> Iterator[str | Reasoning]:
        if text := text.lstrip():
            self._step = self._think
            yield from self._step(text)

    def _think(self, text: str) -> Iterator[str | Reasoning]:
        thought, tag, rest = text.partition(CLOSE)
        if tag:
            self._step = self._skip_to_text
        else:
            cut = _cut(text)
            thought, self._held = text[:cut], text[cut:]
        if thought:
            yield Reasoning(thought)
        yield from self._step(rest) if tag else ()

    def _skip_to_text(self, text: str) -> Iterator[str | Reasoning]:
        if text := text.lstrip():
            self._step = self._write
            yield text

    def _write(self, text: str) -> Iterator[str | Reasoning]:
        if text:
            yield text


def _cut(text: str) -> int:
    """Where the longest end of a text is with which the closing tag may begin."""
    possible = range(max(len(text) - len(CLOSE) + 1, 0), len(text))
    return next((at for at in possible if CLOSE.startswith(text[at:])), len(text))

"""Separate the reasoning that a model writes between tags in its text. Some servers do not parse these tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .base import Reasoning

OPEN, CLOSE = "<think>", "</think>"

MOST_SPACE = 1_000
"""The most white space to hold back before the first word, until it is clear whether a tag follows."""


class Thinking:
    """Separates reasoning from text, however the pieces are cut.

    Reasoning is only at the beginning of a reply, between `<think>` and the first `</think>`. Anywhere else, the tags
    are text, as in an answer about them. White space around the tags belongs to neither. Ollama reads replies in the
    same way.
    """

    def __init__(self, *, tagged: bool = True) -> None:
        """Prepare for one reply. Unless `tagged`, everything is text."""
        self._held = ""
        self._step: Callable[[str], Iterator[str | Reasoning]] = self._begin if tagged else self._write

    def feed(self, text: str) -> Iterator[str | Reasoning]:
        """Yield the contents of a piece. Hold a possible beginning of a tag back until the next piece."""
        held, self._held = self._held, ""
        return self._step(held + text)

    def close(self) -> Iterator[str | Reasoning]:
        """Yield the text that is still held back when the reply ends, because it is not a tag."""
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
    """Return the index of the longest suffix of a text that may begin the closing tag, or the text's length."""
    possible = range(max(len(text) - len(CLOSE) + 1, 0), len(text))
    return next((at for at in possible if CLOSE.startswith(text[at:])), len(text))

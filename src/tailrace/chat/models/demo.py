"""The built-in model: no key, no download, the same reply to the same conversation every time."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TypeVar

from .base import Message, ModelError, Usage
from .demo_parts import (
    ASKED,
    FOLLOWING,
    INTRODUCTION,
    ORDINARY,
    PARTS,
    QUESTION,
    RELATED,
    REMARKS,
    REPEATED,
    SIGNATURE,
    SILENCE,
    STATEMENT,
    Kind,
    Part,
)

T = TypeVar("T")

FAIL = "/fail"
EXCERPT = 60


class DemoModel:
    """A model that is none, for trying the server: prepared Markdown, chosen by what was said.

    - `words`: how many come at a time, on average; one more or less each time. At least one.
    - `pace`: seconds between them.

    A message with one of the words long, short, table, code, list or quote gets such a reply. The message `/fail` gets
    half of one, and then a ModelError with the code `model_error`.
    """

    framework = "built in"

    def __init__(self, words: float = 4.0, pace: float = 0.1, name: str = "demo") -> None:
        self._words = words
        self._pace = pace
        self.name = name

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str | Usage, None]:
        text = compose(conversation)
        pieces = list(cut(text, self._words))
        fails = conversation[-1].text.strip() == FAIL
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(self._pace)
            if fails and number == len(pieces) // 2:
                raise ModelError(f"the demo model fails, because {FAIL} asks for it", code="model_error")
            yield piece
        yield Usage(sum(_size(message.text) for message in conversation), _size(text))


def cut(text: str, words: float) -> Iterator[str]:
    """Pieces of about `words` words, which are the text when they are put together again."""
    parts = re.findall(r"\s*\S+\s*", text)
    bits = hashlib.blake2b(text.encode(errors="surrogatepass")).digest()
    start = number = 0
    while start < len(parts):
        number += 1
        # Each border is up to one word late: so sizes vary by one, and their average does not.
        end = max(start + 1, int(words * number) + (bits[number % len(bits)] & 1))
        yield "".join(parts[start:end])
        start = end


def compose(conversation: Sequence[Message]) -> str:
    """The whole reply to a conversation. It ends with the user's message; nothing else decides what it is."""
    asked = [message.text for message in conversation if message.role == "user"]
    *earlier, message = asked
    words = _words(message)
    deck = _Deck("\n".join(asked), words)
    shape = next((ASKED[word] for word in words if word in ASKED), None)
    if shape is None:
        shape = deck.pick(ORDINARY)
    blocks = [_greeting(message)]
    if earlier:
        blocks.append(_memory(earlier, message))
    blocks += [part.text for part in deck.deal(shape)] or [deck.pick(REMARKS)]
    blocks.append(SIGNATURE.format(turn=len(asked)) if earlier else INTRODUCTION)
    return "\n\n".join(blocks) + "\n"


class _Deck:
    """The parts, shuffled by a text: those that are about its words are on top. No part is dealt twice."""

    def __init__(self, seed: str, words: Sequence[str]) -> None:
        self._digest = hashlib.blake2b(seed.encode(errors="surrogatepass")).digest()
        self._position = 0
        wanted = set(words)
        order = sorted(range(len(PARTS)), key=lambda number: (not PARTS[number].about & wanted, self._digest[number]))
        self._cards = [PARTS[number] for number in order]

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self._roll(len(choices))]

    def deal(self, shape: Iterable[Kind]) -> Iterator[Part]:
        for kind in shape:
            card = next((card for card in self._cards if card.kind == kind), None)
            if card is not None:
                self._cards.remove(card)
                yield card

    def _roll(self, sides: int) -> int:
        self._position += 1
        return self._digest[self._position] % sides


def _greeting(message: str) -> str:
    size = _size(message)
    if not size:
        return SILENCE
    template = QUESTION if "?" in message else STATEMENT
    return template.format(message=_excerpt(message), size="one word" if size == 1 else f"{size} words")


def _memory(earlier: Sequence[str], message: str) -> str:
    """What the conversation so far has to do with the message."""
    turn = len(earlier) + 1
    words = set(_words(message))
    for number, text in enumerate(earlier, 1):
        if text == message:
            return REPEATED.format(number=number, turn=turn)
    for number, text in enumerate(earlier, 1):
        shared = [word for word in _words(text) if word in words and len(word) > 4 and word not in ASKED]
        if shared:
            return RELATED.format(word=max(shared, key=len), number=number, message=_excerpt(text))
    return FOLLOWING.format(turn=turn, message=_excerpt(earlier[-1]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _size(text: str) -> int:
    return len(text.split())


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if 0 < len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"

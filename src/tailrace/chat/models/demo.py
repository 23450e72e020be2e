"""The built-in model. It needs no key and no download, and always gives the same reply to the same conversation."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TypeVar

from .base import Message, Model, ModelError, Piece, Reasoning, Usage
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
    THOUGHTS,
    Kind,
    Part,
)

T = TypeVar("T")

FAIL = "/fail"
THINK = "think"
EXCERPT = 60


class DemoModel(Model):
    """Answers with prepared Markdown, chosen by the words of the conversation, so that you can try the server.

    - `words`: the average number of words in a piece. Each piece has at least one, and up to one more or less.
    - `pace`: seconds between the pieces.

    The words `long`, `short`, `table`, `code`, `list` and `quote` in a message select the parts of the reply. The word
    `think` makes the model think first. The message `/fail` gets half a reply, and then a ModelError.
    """

    def __init__(self, words: float = 4.0, pace: float = 0.1, name: str = "demo") -> None:
        self._words = words
        self._pace = pace
        self.name = name

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        message = conversation[-1].text
        text = compose(conversation)
        pieces: list[str | Reasoning] = list(cut(text, self._words))
        fails = message.strip() == FAIL
        if fails:
            del pieces[len(pieces) // 2 :]
        if THINK in _words(message):
            pieces[:0] = map(Reasoning, cut(THOUGHTS.format(size=_sized(message)), self._words))
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(self._pace)
            yield piece
        if fails:
            raise ModelError(f"the demo model fails, because {FAIL} asks for it")
        yield Usage(sum(_size(message.text) for message in conversation), _size(text))


def cut(text: str, words: float) -> Iterator[str]:
    """Cut a text into pieces of about `words` words. The joined pieces equal the text."""
    parts = re.findall(r"\s*\S+\s*", text)
    bits = hashlib.blake2b(text.encode(errors="surrogatepass")).digest()
    start = number = 0
    while start < len(parts):
        number += 1
        # Each border is up to one word late, so the sizes vary by one around their average.
        end = max(start + 1, int(words * number) + (bits[number % len(bits)] & 1))
        yield "".join(parts[start:end])
        start = end


def compose(conversation: Sequence[Message]) -> str:
    """Return the whole reply to a conversation that ends with the user's message."""
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
    """The parts, shuffled by a seed text. Parts about the given words are on top. No part is dealt twice."""

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
    if not _size(message):
        return SILENCE
    template = QUESTION if "?" in message else STATEMENT
    return template.format(message=_excerpt(message), size=_sized(message))


def _memory(earlier: Sequence[str], message: str) -> str:
    """Return a sentence that relates the message to the conversation so far."""
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


def _sized(text: str) -> str:
    return "one word" if (size := _size(text)) == 1 else f"{size} words"


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if 0 < len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"

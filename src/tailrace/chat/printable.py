"""Text of others, made harmless for a terminal."""

from __future__ import annotations

from unicodedata import category

# Controls (escape codes among them), invisible formatting (which can reverse what is read), surrogates, line breaks.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINER = "\u200d"  # holds the parts of an emoji together


def printable(text: str) -> str:
    r"""The text on one line, with an escape like `\x1b` in place of what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if category(char) in _HARMFUL and char != _JOINER else char for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

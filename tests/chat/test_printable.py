from __future__ import annotations

import pytest

from tailrace.chat.printable import printable


@pytest.mark.parametrize(
    "text", ["", "a b", "[bold]", "Grüße, 世界", "👩\u200d💻 and \u00a0", "\\x1b"], ids=lambda text: ascii(text)
)
def test_what_is_only_read_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x7f\x9b1m", r"\x7f\x9b1m"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("a\u2028b\ud800", r"a\u2028b\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, harmless: str) -> None:
    assert printable(text) == harmless

from __future__ import annotations

import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from tailrace.chat.banner import ServerFacts, announce, banner

FACTS = ServerFacts(
    model="demo",
    framework="built-in",
    address="http://127.0.0.1:8000",
    database="/home/me/.local/share/tailrace/chat.sqlite3",
)


def drawn(facts: ServerFacts, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(banner(facts))
    return stream.getvalue()


def test_the_banner_says_what_one_needs_to_know() -> None:
    text = drawn(FACTS)
    assert text.splitlines()[0].startswith("╭─ tailrace chat server ─")
    for name, value in [
        ("Model", "demo"),
        ("Framework", "built-in"),
        ("Multi-turn", "yes"),
        ("Streaming", "yes"),
        ("Address", "http://127.0.0.1:8000"),
        ("Demo page", "http://127.0.0.1:8000/demo"),
        ("API", "http://127.0.0.1:8000/docs"),
        ("Database", "/home/me/.local/share/tailrace/chat.sqlite3"),
        ("Status", "ready"),
        ("To stop", "press Ctrl-C"),
    ]:
        assert any(line.startswith(f"│ {name} ") and value in line for line in text.splitlines()), name
    assert "Note" not in text
    assert {len(line) for line in text.splitlines()} == {80}


def test_a_note_is_a_line_of_its_own() -> None:
    assert "│ Note        no key was found" in drawn(replace(FACTS, note="no key was found"))


@pytest.mark.parametrize("width", [60, 40])
def test_nothing_is_lost_where_it_is_narrow(width: int) -> None:
    text = drawn(FACTS, width)
    assert {len(line) for line in text.splitlines()} == {width}
    assert FACTS.database in "".join(line.strip("│ ") for line in text.splitlines())


def test_names_are_text_and_no_markup() -> None:
    assert "[red]x[/red]\\x1b[2J" in drawn(replace(FACTS, model="[red]x[/red]\x1b[2J"))


def test_it_is_announced_as_one_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tailrace.chat")
    announce(FACTS)
    (record,) = caplog.records
    assert record.getMessage() == "chat server ready on http://127.0.0.1:8000 with demo"
    assert vars(record)["event"] == "server_started"
    assert vars(record)["database"] == FACTS.database

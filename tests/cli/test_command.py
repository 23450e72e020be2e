from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tailrace.cli.command import Notices, say
from tailrace.client import Loss


def test_a_notice_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines \x1b[2J")
    assert capsys.readouterr() == ("", "two lines ␛[2J\n")


def test_who_wants_no_notices_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    Notices("tail", quiet=False).tell("so it is")
    Notices("tail", quiet=True).tell("so it is not")
    assert capsys.readouterr().err == "tailrace tail: so it is\n"


def test_attempts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices("tail", quiet=False)
    notices.tell_reconnect(1, 0.04, Loss("unsent", "no connection"))
    notices.tell_reconnect(2, 12.0, Loss("unsent", "no connection"))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tailrace tail: no connection; reconnecting in 0.0 s"
    assert second == "tailrace tail: no connection; reconnecting in 12.0 s (attempt 2)"


def test_nobody_has_to_read_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        say("lost")
    monkeypatch.setattr(sys, "stderr", None)  # which is what Python makes of a closed one
    say("lost")
    assert capsys.readouterr().out == ""

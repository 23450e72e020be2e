from __future__ import annotations

import json

import pytest

from tailrace import Frame
from tailrace.cli.tailing.line import Printer

SSE, TEXT = "text/event-stream", "text/plain"
HARMFUL = "\x1b[2J\x9b\u202e"


def line(data: object, media_type: str = SSE, *, objects: bool = False, terminal: bool = False) -> str:
    return Printer(objects=objects, terminal=terminal).line(Frame(data, "name", "1"), media_type).decode()


def test_text_is_as_it_is_and_all_else_is_json() -> None:
    assert line("é\nn") == "é\nn\n"
    assert line({"é": [1, None]}) == '{"é":[1,null]}\n'
    assert line("piece", TEXT) == "piece"
    assert line(1, TEXT) == "1\n"


@pytest.mark.parametrize("media_type", [SSE, TEXT])
def test_an_object_is_one_line(media_type: str) -> None:
    assert line("a\nb", media_type, objects=True) == '{"id":"1","event":"name","data":"a\\nb"}\n'


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_json_cannot_say_is_null(number: float) -> None:
    assert line([number]) == "[null]\n"
    assert json.loads(line(number, objects=True))["data"] is None


def test_elsewhere_than_on_a_terminal_nothing_is_changed() -> None:
    assert line(HARMFUL) == f"{HARMFUL}\n"
    assert line(HARMFUL, TEXT) == HARMFUL
    assert line([HARMFUL]) == '["\\u001b[2J\x9b\u202e"]\n'


def test_a_terminal_obeys_nothing() -> None:
    assert line(HARMFUL, terminal=True) == "␛[2J\ufffd\ufffd\n"
    assert line(HARMFUL, TEXT, terminal=True) == "␛[2J\ufffd\ufffd"
    printed = line([HARMFUL], terminal=True)
    assert printed == '["\\u001b[2J\\u009b\\u202e"]\n'
    assert json.loads(printed) == [HARMFUL]


def test_a_line_end_in_two_pieces_is_one() -> None:
    printer = Printer(objects=False, terminal=True)
    assert [printer.line(Frame(piece), TEXT) for piece in ("a\r", "\nb")] == [b"a\n", b"b"]

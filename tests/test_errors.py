from __future__ import annotations

import inspect
import pickle
import re

import pytest

from tailrace import errors
from tailrace.errors import (
    CursorError,
    DecodeError,
    EventError,
    FileChanged,
    FrameTooLarge,
    LogClosed,
    LogReset,
    NotAcceptable,
    SlowReader,
    StreamError,
    TailraceError,
    Truncated,
)

SENTENCES = [
    (CursorError("x y", "<a>.<b>"), "expected a cursor like <a>.<b>, but got 'x y'"),
    (EventError("no such data"), "no such data"),
    (LogClosed("news", "done"), "expected log 'news' to be open, but it has ended as 'done'"),
    (
        LogReset("news", "trimmed", "news.e.7"),
        "log 'news' no longer has the next event (trimmed); go on from news.e.7",
    ),
    (
        LogReset("news", "epoch_changed", "news.f.0"),
        "the store has forgotten or lost the log 'news' that was read (epoch_changed); go on from news.f.0",
    ),
    (
        LogReset("news", "diverged", "news.f.0"),
        "the store has lost events of log 'news' that were read (diverged); go on from news.f.0",
    ),
    (
        LogReset("news", "ahead", "news.f.0"),
        "log 'news' has fewer events than were read (ahead); go on from news.f.0",
    ),
    (
        SlowReader("news", 12, 10),
        "expected a reader of log 'news' to be at most 10 entries behind, but it is 12",
    ),
    (
        NotAcceptable("image/png", ["application/json", "text/plain"]),
        "expected Accept to allow one of application/json, text/plain, but got 'image/png'",
    ),
    (StreamError("out of tokens", code="quota", status=429), "out of tokens"),
    (FileChanged("a", "was written to"), "expected a to stay as it is while it is sent, but it was written to"),
    (DecodeError("not JSON"), "not JSON"),
    (FrameTooLarge(8, 9), "expected a frame of at most 8 bytes, but got at least 9"),
    (Truncated("cut"), "cut"),
]
ERRORS = [error for error, _ in SENTENCES]


@pytest.mark.parametrize(("error", "sentence"), SENTENCES)
def test_an_error_says_its_facts_in_a_sentence(error: TailraceError, sentence: str) -> None:
    assert str(error) == sentence


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_facts(error: TailraceError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_is_a_tailrace_error(error: Exception) -> None:
    assert isinstance(error, TailraceError)


@pytest.mark.parametrize("kind", [CursorError, EventError, DecodeError])
def test_what_cannot_be_read_or_written_is_also_a_value_error(kind: type[TailraceError]) -> None:
    assert issubclass(kind, ValueError)


def test_facts_are_attributes() -> None:
    reset = LogReset("news", "diverged", "news.e.7")
    assert (reset.name, reset.reason, reset.resume) == ("news", "diverged", "news.e.7")
    slow = SlowReader("news", 12, 10)
    assert (slow.name, slow.behind, slow.high) == ("news", 12, 10)
    assert NotAcceptable("image/png", ["a/b"]).available == ("a/b",)
    too_large = FrameTooLarge(8, 9)
    assert (too_large.limit, too_large.size) == (8, 9)


def test_a_stream_error_is_a_server_error_unless_told_otherwise() -> None:
    error = StreamError("no")
    assert (error.message, error.code, error.status) == ("no", "error", 500)


@pytest.mark.parametrize("error", [CursorError("x" * 5000, "<a>"), NotAcceptable("x" * 5000, ["a/b"])])
def test_long_input_is_cut_in_the_sentence(error: TailraceError) -> None:
    assert len(str(error)) < 300


def test_the_drawn_tree_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if (match := re.match(r"([ │├└─]*)([A-Z]\w+)(?:  |$)", line)) is not None:
            depth = len(match[1]) // 4
            del above[depth:]
            drawn[match[2]] = above[-1] if above else "Exception"
            above.append(match[2])
    actual = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__ and kind.__base__ is not None
    }
    assert drawn == actual

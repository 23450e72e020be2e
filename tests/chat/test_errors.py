"""What a client is told that is refused, and what the document says of it."""

from __future__ import annotations

import re

import pytest

from tailrace.chat import errors, store
from tailrace.chat.errors import STORE_REFUSALS, Refused, refusal_of, refusals
from tests.serving import ROOT

ELSEWHERE = {
    (403, "foreign_origin"),
    (421, "unknown_host"),
    (400, "bad_cursor"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (406, "not_acceptable"),
    (422, "invalid_request"),
}
"""What is refused before the chat is asked, or fails in it."""


def all_refusals() -> list[type[Refused]]:
    return Refused.__subclasses__()


def test_every_refusal_is_in_the_drawing_and_has_a_code_of_its_own() -> None:
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in all_refusals())
    assert len({kind.code for kind in all_refusals()}) == len(all_refusals())
    assert all(400 <= kind.status < 600 for kind in all_refusals())


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (store.SessionNotFound("id"), errors.SessionNotFound),
        (store.SessionFull(3), errors.SessionFull),
        (store.SessionLimit(3), errors.TooManySessions),
        (store.BadToken("x" * 1000), errors.BadPage),
        (store.StoreError("/secret/place: disk full"), errors.StorageFailed),
    ],
)
def test_what_the_store_raises_is_refused(raised: Exception, kind: type[Refused]) -> None:
    refusal = refusal_of(raised)
    assert type(refusal) is kind
    assert refusal.problem.code == kind.code
    assert "secret" not in refusal.detail
    assert len(refusal.detail) < 200
    assert type(raised) in STORE_REFUSALS


def test_a_turn_that_is_not_the_last_one_is_told_in_few_words() -> None:
    assert errors.TurnNotLast("", "abc").detail == "expected the stream of the session's last turn, abc, but got ''"
    assert errors.TurnNotLast("x", None).detail.endswith("because the session is empty, but got 'x'")
    assert len(errors.TurnNotLast("x" * 100_000, "abc").detail) < 200


def test_a_busy_session_names_its_stream() -> None:
    problem = errors.SessionBusy("session", "stream").problem
    assert problem.model_dump() == {
        "detail": "the session is answering: resume, stop or wait for the stream stream",
        "code": "session_busy",
        "session_id": "session",
        "stream_id": "stream",
    }


def test_refusals_of_one_status_are_described_together() -> None:
    said = refusals(errors.SessionNotFound, errors.StreamNotFound, errors.Unauthorized)
    assert set(said) == {401, 404}
    assert said[404]["description"] == "session not found, or stream not found"


def test_the_page_names_each_refusal_and_no_other() -> None:
    page = (ROOT / "docs" / "chat.md").read_text()
    table = page.partition("## Refusals")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([0-9]{3})([^|]*)\| ([^|;]*)", table, re.MULTILINE)
    said = {(int(status), code) for status, _, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert said == ELSEWHERE | {(kind.status, kind.code) for kind in all_refusals()}
    waiting = {int(status) for status, note, _ in rows if "Retry-After" in note}
    assert waiting == {kind.status for kind in all_refusals() if "Retry-After" in kind.headers}

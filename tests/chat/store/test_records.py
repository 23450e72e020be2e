from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.chat.store import BadToken
from tailrace.chat.store.records import session_place, session_token, turn_place, turn_token

URL_SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.integers(0, 2**63 - 1))
def test_a_token_of_a_turn_names_its_number(number: int) -> None:
    token = turn_token(number)
    assert turn_place(token) == number
    assert set(token) <= URL_SAFE


@given(st.floats(allow_nan=False), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_token_of_a_session_names_its_place(updated: float, session_id: str) -> None:
    token = session_token(updated, session_id)
    assert session_place(token) == (updated, session_id)
    assert set(token) <= URL_SAFE


@pytest.mark.parametrize("token", ["", "A", "null", "é", "\ud800", "AAAAAAAAAAA" * 2, "=", "?" * 11])
def test_what_no_page_of_turns_gave_is_refused(token: str) -> None:
    with pytest.raises(BadToken) as refused:
        turn_place(token)
    assert isinstance(refused.value, ValueError)
    assert str(refused.value) == f"expected a token that a page gave, but got {token!r}"


@pytest.mark.parametrize("token", ["", "A", "é", session_token(1.0, "a\0b"), turn_token(-1)[:-1] + "__w"])
def test_what_no_page_of_sessions_gave_is_refused(token: str) -> None:
    with pytest.raises(BadToken):
        session_place(token)


def test_a_long_token_is_not_repeated_whole() -> None:
    assert len(str(BadToken("x" * 10_000))) < 200


@given(st.text())
def test_any_text_is_a_place_or_refused(token: str) -> None:
    for place in (turn_place, session_place):
        try:
            found = place(token)
        except BadToken:
            continue
        assert found is not None

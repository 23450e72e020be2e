"""The search in titles and messages, with each database."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest

from tailrace.chat.store import BadToken, Store
from tailrace.chat.store import store as stores
from tailrace.chat.store.search import BATCH

from .asking import asks, begin

ALL = "Straße λόγος two\nlines 100% a_b c\\d [x] *? ^(a|b)+$.{2} ' a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("pears", "a"),
        ("PEARS", "a"),
        ("äpfel", "ba"),
        ("ÄPFEL", "ba"),
        ("ПРИВЕТ", "b"),
        ("straße", "c"),
        ("λόγος", "c"),
        ("ΛΌΓΟ", "c"),
        ("λ*", ""),
        ("two\nlines", "c"),
        ("100%", "c"),
        ("0%a", ""),
        ("%", "c"),
        ("_", "c"),
        ("\\", "c"),
        ("[x]", "c"),
        ("*?", "c"),
        ("^(a|b)+$.{2}", "c"),
        ("'", "c"),
        ("a\0b", "c"),
        ("named", "c"),
        ("gone", ""),
        ("bob's", ""),
    ],
)
async def test_a_text_is_found_in_titles_and_messages(store: Store, text: str, ids: str) -> None:
    await begin(store, asks("a", "Pears and äpfel", now=1.0), create=True)
    begun = await begin(store, asks("b", "hello", now=2.0), create=True)
    await store.end_turn(replace(begun.turn, state="complete", reply="Äpfel, привет"))
    await begin(store, asks("c", ALL, now=3.0), create=True)
    await store.rename("c", "ann", "Named")
    await begin(store, asks("d", "gone", now=4.0), create=True)
    await store.clear("d", "ann")
    await begin(store, asks("e", "bob's pears"), "bob", create=True)
    assert [session.id for session in (await store.search("ann", text, limit=100)).items] == list(ids)


async def test_a_search_goes_on_from_page_to_page(store: Store) -> None:
    for number in range(BATCH + 5):
        message = "an odd one" if number % 2 else "even"
        await begin(store, asks(f"s{number:03}", message, now=float(number // 3)), create=True)
    pages: list[list[str]] = []
    token = None
    while not pages or token is not None:
        page = await store.search("ann", "ODD", limit=4, after=token)
        pages.append([session.id for session in page.items])
        token = page.next
    assert list(chain(*pages)) == [f"s{number:03}" for number in reversed(range(BATCH + 5)) if number % 2]
    assert max(map(len, pages)) == 4
    with pytest.raises(BadToken):
        await store.search("ann", "odd", limit=2, after="x")


async def test_a_search_that_takes_too_long_leads_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SECONDS", 0.0)
    for number in range(BATCH + 1):
        await begin(store, asks(f"s{number:03}", "last" if number == 0 else "other", now=float(number)), create=True)
    first = await store.search("ann", "last", limit=9)
    assert list(first.items) == []
    assert first.next is not None
    rest = await store.search("ann", "last", limit=9, after=first.next)
    assert [session.id for session in rest.items] == ["s000"]
    assert rest.next is None

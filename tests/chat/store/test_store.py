"""What a store does, the same with each database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tailrace.chat.models.base import Usage
from tailrace.chat.sessions import Page, Session, Turn
from tailrace.chat.store import BadToken, SessionLimit, Store, StoreError, open_store

from .asking import asks, begin


async def sessions_of(store: Store, owner: str = "ann") -> list[str]:
    return [session.id for session in (await store.sessions(owner, limit=1000)).items]


# Sessions


async def test_a_new_session_has_no_turns(store: Store) -> None:
    session = await store.create_session("s", "ann", 1000.25, limit=1)
    assert session == Session(id="s", owner="ann", title="", turns=0, created=1000.25, updated=1000.25)
    assert await store.session("s", "ann") == session
    assert await store.turns("s", limit=10) == Page([], None)


async def test_nobody_sees_another_owner_s(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    begun = await begin(store, asks())
    assert await store.session("s", "bob") is None
    assert await store.find_turn(begun.turn.stream_id, "bob") is None
    assert await sessions_of(store, "bob") == []
    assert not await store.clear("s", "bob")
    assert not await store.delete("s", "bob")
    assert await store.session("s", "ann") == begun.session
    assert await store.find_turn(begun.turn.stream_id, "ann") == begun.turn


async def test_the_owner_may_be_nobody(store: Store) -> None:
    await store.create_session("s", "", 1.0, limit=1)
    assert await sessions_of(store, "") == ["s"]
    assert await store.count("") == 1


async def test_an_owner_has_only_so_many_sessions(store: Store) -> None:
    for name in ("a", "b"):
        await store.create_session(name, "ann", 1.0, limit=2)
    with pytest.raises(SessionLimit, match="expected fewer than 2 sessions of one owner") as refused:
        await store.create_session("c", "ann", 1.0, limit=2)
    assert refused.value.limit == 2
    await store.create_session("c", "bob", 1.0, limit=2)
    assert await store.delete("a", "ann")
    await store.create_session("d", "ann", 1.0, limit=2)
    assert (await store.count("ann"), await store.count("bob"), await store.count()) == (2, 1, 3)


async def test_a_session_that_could_not_be_made_does_not_count(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    with pytest.raises(StoreError):
        await store.create_session("s", "bob", 1.0, limit=9)
    assert (await store.count("bob"), await store.count()) == (0, 1)


async def test_nobody_has_no_sessions(store: Store) -> None:
    assert await store.count() == 0
    assert await store.count("ann") == 0


async def test_a_name_that_no_database_takes_is_nobody_s(store: Store) -> None:
    for name in ("a\0b", "\ud800"):
        assert await store.session(name, "ann") is None
        assert await store.find_turn(name, "ann") is None


# Pages


async def test_sessions_come_in_pages_the_last_updated_first(store: Store) -> None:
    times = {"a": 5.0, "b": 7.5, "c": 7.5, "d": 1.0, "e": 9.25}
    for name, time in times.items():
        await store.create_session(name, "ann", time, limit=9)
    await store.create_session("other", "bob", 6.0, limit=9)
    seen: list[list[str]] = []
    after = None
    while not seen or after is not None:
        page = await store.sessions("ann", limit=2, after=after)
        seen.append([session.id for session in page.items])
        after = page.next
    assert seen == [["e", "c"], ["b", "a"], ["d"]]


async def test_the_last_page_may_be_full(store: Store) -> None:
    for name in ("a", "b"):
        await store.create_session(name, "ann", 1.0, limit=9)
    first = await store.sessions("ann", limit=1)
    last = await store.sessions("ann", limit=1, after=first.next)
    assert (len(first.items), len(last.items), last.next) == (1, 1, None)


async def test_a_turn_brings_its_session_to_the_front(store: Store) -> None:
    await store.create_session("a", "ann", 1.0, limit=9)
    await store.create_session("b", "ann", 2.0, limit=9)
    await begin(store, asks("a", now=3.0))
    assert await sessions_of(store) == ["a", "b"]


async def test_turns_come_in_pages_the_newest_page_first(store: Store) -> None:
    numbers = [(await begin(store, asks(), new_session=True)).turn.number]
    numbers += [(await begin(store, asks())).turn.number for _ in range(4)]
    await begin(store, asks("other"), new_session=True)
    assert numbers == sorted(numbers)
    seen: list[int] = []
    before = None
    while not seen or before is not None:
        page = await store.turns("s", limit=2, before=before)
        assert len(page.items) <= 2
        seen = [turn.number for turn in page.items] + seen
        before = page.next
    assert seen == numbers


async def test_the_oldest_page_of_turns_may_be_full(store: Store) -> None:
    await begin(store, asks(), new_session=True)
    await begin(store, asks())
    newest = await store.turns("s", limit=1)
    oldest = await store.turns("s", limit=1, before=newest.next)
    assert [turn.number for turn in (*oldest.items, *newest.items)] == [
        turn.number for turn in (await store.turns("s", limit=2)).items
    ]
    assert oldest.next is None


async def test_a_token_that_no_page_gave_is_refused(store: Store) -> None:
    with pytest.raises(BadToken):
        await store.sessions("ann", limit=1, after="?")
    with pytest.raises(BadToken):
        await store.turns("s", limit=1, before="?")


# How a turn ends


async def test_a_checkpoint_keeps_what_there_is_of_many_replies(store: Store) -> None:
    first = (await begin(store, asks("a"), new_session=True)).turn
    second = (await begin(store, asks("b"), new_session=True)).turn
    third = (await begin(store, asks("c"), new_session=True)).turn
    await store.checkpoint([(second.number, "two", 2), (first.number, "one", 1)])
    assert await store.find_turn(first.stream_id, "ann") == replace(first, reply="one", chunks=1)
    assert await store.find_turn(second.stream_id, "ann") == replace(second, reply="two", chunks=2)
    assert await store.find_turn(third.stream_id, "ann") == third


async def test_a_checkpoint_of_nothing(store: Store) -> None:
    await store.checkpoint([])


ENDS = {
    "complete": {"state": "complete", "usage": Usage(input_tokens=12, output_tokens=0)},
    "stopped": {"state": "stopped", "reply": ""},
    "failed": {"state": "failed", "error_code": "model_error", "error_message": "It broke"},
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_turn_keeps_how_it_ended(store: Store, end: dict[str, object]) -> None:
    turn = (await begin(store, asks(), new_session=True)).turn
    facts = {"reply": "héllo 👋", "chunks": 3, "seconds": 1.625, "context_messages": 7, **end}
    ended = replace(turn, **facts)  # type: ignore[arg-type]
    await store.end_turn(ended)
    assert await store.find_turn(turn.stream_id, "ann") == ended
    assert (await store.turns("s", limit=1)).items == [ended]


async def test_a_late_checkpoint_does_not_undo_the_end(store: Store) -> None:
    turn = (await begin(store, asks(), new_session=True)).turn
    ended = replace(turn, state="complete", reply="all of it", chunks=3)
    await store.end_turn(ended)
    await store.checkpoint([(turn.number, "all", 1)])
    assert await store.find_turn(turn.stream_id, "ann") == ended


async def test_a_reply_may_hold_what_no_database_takes(store: Store) -> None:
    turn = (await begin(store, asks(), new_session=True)).turn
    await store.checkpoint([(turn.number, "a\0b", 1)])
    assert (await store.turns("s", limit=1)).items[0].reply == "a\ufffdb"
    halves = "\ud83d" + "\udc4b" + "\udc4b!\0"
    await store.end_turn(replace(turn, state="failed", reply=halves, error_message=halves))
    (ended,) = (await store.turns("s", limit=1)).items
    assert ended.reply == ended.error_message == "👋\ufffd!\ufffd"


async def test_what_an_earlier_server_left_unfinished_is_interrupted(store: Store) -> None:
    ended = replace((await begin(store, asks("a"), new_session=True)).turn, state="complete", reply="all")
    left = (await begin(store, asks("b"), new_session=True)).turn
    await store.end_turn(ended)
    await store.checkpoint([(left.number, "so f", 2)])
    assert await store.interrupt_turns() == 1
    assert await store.find_turn(left.stream_id, "ann") == replace(left, state="interrupted", reply="so f", chunks=2)
    assert await store.find_turn(ended.stream_id, "ann") == ended
    assert await store.interrupt_turns() == 0


@pytest.mark.parametrize("url", ["file", "postgresql"], indirect=True)
async def test_all_is_there_after_opening_again(url: str) -> None:
    async with open_store(url) as store:
        begun = await begin(store, asks(message="Remember me"), new_session=True)
    async with open_store(url) as store:
        assert await store.interrupt_turns() == 1
        assert await store.session("s", "ann") == begun.session
        assert await store.turns("s", limit=9) == Page([replace(begun.turn, state="interrupted")], None)


# Removing


async def test_clearing_a_session_leaves_it_as_new(store: Store) -> None:
    begun = await begin(store, asks(), new_session=True)
    kept = (await begin(store, asks("other"), new_session=True)).turn
    assert await store.clear("s", "ann")
    assert await store.session("s", "ann") == replace(begun.session, title="", turns=0)
    assert await store.turns("s", limit=9) == Page([], None)
    assert await store.find_turn(begun.turn.stream_id, "ann") is None
    assert await store.find_turn(kept.stream_id, "ann") == kept
    assert await store.count("ann") == 2

    again = await begin(store, asks(message="Once more"))
    assert (again.session.title, again.session.turns, again.context) == ("Once more", 1, ())
    assert again.turn.number > kept.number


async def test_deleting_a_session_removes_its_turns(store: Store) -> None:
    begun = await begin(store, asks(), new_session=True)
    assert await store.delete("s", "ann")
    assert await store.session("s", "ann") is None
    assert await store.find_turn(begun.turn.stream_id, "ann") is None
    assert await store.turns("s", limit=9) == Page([], None)
    assert await store.count("ann") == 0
    assert not await store.delete("s", "ann")
    assert not await store.clear("s", "ann")


async def test_the_end_of_a_turn_that_was_removed_is_not_kept(store: Store) -> None:
    turn: Turn = (await begin(store, asks(), new_session=True)).turn
    await store.clear("s", "ann")
    await store.checkpoint([(turn.number, "late", 1)])
    await store.end_turn(replace(turn, state="complete"))
    assert await store.turns("s", limit=9) == Page([], None)


async def test_a_store_that_answers_is_there(store: Store) -> None:
    await store.ping()

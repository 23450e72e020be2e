"""What a store does, the same with each database."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tailrace.chat.models.base import Usage
from tailrace.chat.store import (
    BadToken,
    Begun,
    Page,
    Session,
    SessionFull,
    SessionLimit,
    SessionNotFound,
    SessionRunning,
    Store,
    StoreError,
    Turn,
    TurnNotLast,
    open_store,
)

from .asking import asks, begin


async def sessions_of(store: Store, owner: str = "ann") -> list[str]:
    return [session.id for session in (await store.sessions(owner, limit=1000)).items]


# Sessions


async def test_a_new_session_has_no_turns(store: Store) -> None:
    session = await store.create_session("s", "ann", 1000.25, limit=1)
    assert session == Session(id="s", owner="ann", title="", turns=0, created=1000.25, updated=1000.25)
    assert await store.session("s", "ann") == session
    assert await store.turns("s", "ann", limit=10) == Page([], None)


async def test_nobody_sees_another_owner_s(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    begun = await begin(store, asks())
    assert await store.session("s", "bob") is None
    assert await store.find_turn(begun.turn.stream_id, "bob") is None
    assert await sessions_of(store, "bob") == []
    assert not await store.clear("s", "bob")
    assert await store.delete("s", "bob") is None
    assert await store.session("s", "ann") == begun.session
    assert await store.find_turn(begun.turn.stream_id, "ann") == begun.turn


async def test_two_owners_may_have_sessions_of_the_same_name(store: Store) -> None:
    turns = {
        owner: (await begin(store, asks(message=f"I am {owner}"), owner, create=True)).turn for owner in ("ann", "bob")
    }
    again = await begin(store, asks(message="Again"), "bob")
    assert list(again.context) == [turns["bob"]]
    assert list((await store.turns("s", "ann", limit=9)).items) == [turns["ann"]]
    assert await store.delete("s", "bob") is not None
    assert await store.find_turn(turns["bob"].stream_id, "bob") is None
    assert list((await store.turns("s", "ann", limit=9)).items) == [turns["ann"]]
    assert (await store.count("ann"), await store.count("bob")) == (1, 0)


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
    assert await store.delete("a", "ann") is not None
    await store.create_session("d", "ann", 1.0, limit=2)
    assert (await store.count("ann"), await store.count("bob"), await store.count()) == (2, 1, 3)


async def test_a_session_that_could_not_be_made_does_not_count(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    with pytest.raises(StoreError):
        await store.create_session("s", "ann", 1.0, limit=9)
    assert (await store.count("ann"), await store.count()) == (1, 1)


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
    numbers = [(await begin(store, asks(), create=True)).turn.number]
    numbers += [(await begin(store, asks())).turn.number for _ in range(4)]
    await begin(store, asks("other"), create=True)
    assert numbers == sorted(numbers)
    seen: list[int] = []
    before = None
    while not seen or before is not None:
        page = await store.turns("s", "ann", limit=2, before=before)
        assert len(page.items) <= 2
        seen = [turn.number for turn in page.items] + seen
        before = page.next
    assert seen == numbers


async def test_the_oldest_page_of_turns_may_be_full(store: Store) -> None:
    await begin(store, asks(), create=True)
    await begin(store, asks())
    newest = await store.turns("s", "ann", limit=1)
    oldest = await store.turns("s", "ann", limit=1, before=newest.next)
    assert [turn.number for turn in (*oldest.items, *newest.items)] == [
        turn.number for turn in (await store.turns("s", "ann", limit=2)).items
    ]
    assert oldest.next is None


async def test_a_token_that_no_page_gave_is_refused(store: Store) -> None:
    with pytest.raises(BadToken):
        await store.sessions("ann", limit=1, after="?")
    with pytest.raises(BadToken):
        await store.turns("s", "ann", limit=1, before="?")


# How a turn ends


async def test_a_checkpoint_keeps_what_there_is_of_many_replies(store: Store) -> None:
    first = (await begin(store, asks("a"), create=True)).turn
    second = (await begin(store, asks("b"), create=True)).turn
    third = (await begin(store, asks("c"), create=True)).turn
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
    turn = (await begin(store, asks(), create=True)).turn
    facts = {"reply": "héllo 👋", "chunks": 3, "seconds": 1.625, "context_messages": 7, **end}
    ended = replace(turn, **facts)  # type: ignore[arg-type]
    await store.end_turn(ended)
    assert await store.find_turn(turn.stream_id, "ann") == ended
    assert (await store.turns("s", "ann", limit=1)).items == [ended]


async def test_a_late_checkpoint_does_not_undo_the_end(store: Store) -> None:
    turn = (await begin(store, asks(), create=True)).turn
    ended = replace(turn, state="complete", reply="all of it", chunks=3)
    await store.end_turn(ended)
    await store.checkpoint([(turn.number, "all", 1)])
    assert await store.find_turn(turn.stream_id, "ann") == ended


async def test_a_reply_may_hold_what_no_database_takes(store: Store) -> None:
    turn = (await begin(store, asks(), create=True)).turn
    await store.checkpoint([(turn.number, "a\0b", 1)])
    assert (await store.turns("s", "ann", limit=1)).items[0].reply == "a\ufffdb"
    halves = "\ud83d" + "\udc4b" + "\udc4b!\0"
    await store.end_turn(replace(turn, state="failed", reply=halves, error_message=halves))
    (ended,) = (await store.turns("s", "ann", limit=1)).items
    assert ended.reply == ended.error_message == "👋\ufffd!\ufffd"


async def test_what_an_earlier_server_left_unfinished_is_interrupted(store: Store) -> None:
    ended = replace((await begin(store, asks("a"), create=True)).turn, state="complete", reply="all")
    left = (await begin(store, asks("b"), create=True)).turn
    await store.end_turn(ended)
    await store.checkpoint([(left.number, "so f", 2)])
    assert await store.interrupt_turns() == 1
    assert await store.find_turn(left.stream_id, "ann") == replace(left, state="interrupted", reply="so f", chunks=2)
    assert await store.find_turn(ended.stream_id, "ann") == ended
    assert await store.interrupt_turns() == 0


@pytest.mark.parametrize("url", ["file", "postgresql"], indirect=True)
async def test_all_is_there_after_opening_again(url: str) -> None:
    async with open_store(url) as store:
        begun = await begin(store, asks(message="Remember me"), create=True)
    async with open_store(url) as store:
        assert await store.interrupt_turns() == 1
        assert await store.session("s", "ann") == begun.session
        assert await store.turns("s", "ann", limit=9) == Page([replace(begun.turn, state="interrupted")], None)


# Removing


async def test_clearing_a_session_leaves_it_as_new(store: Store) -> None:
    begun = await begin(store, asks(), create=True)
    kept = (await begin(store, asks("other"), create=True)).turn
    assert await store.clear("s", "ann")
    assert await store.session("s", "ann") == replace(begun.session, title="", turns=0)
    assert await store.turns("s", "ann", limit=9) == Page([], None)
    assert await store.find_turn(begun.turn.stream_id, "ann") is None
    assert await store.find_turn(kept.stream_id, "ann") == kept
    assert await store.count("ann") == 2

    again = await begin(store, asks(message="Once more"))
    assert (again.session.title, again.session.turns, again.context) == ("Once more", 1, ())
    assert again.turn.number > kept.number


async def test_deleting_a_session_removes_its_turns(store: Store) -> None:
    begun = await begin(store, asks(), create=True)
    assert await store.delete("s", "ann") is not None
    assert await store.session("s", "ann") is None
    assert await store.find_turn(begun.turn.stream_id, "ann") is None
    assert await store.turns("s", "ann", limit=9) == Page([], None)
    assert await store.count("ann") == 0
    assert await store.delete("s", "ann") is None
    assert not await store.clear("s", "ann")


async def test_the_end_of_a_turn_that_was_removed_is_not_kept(store: Store) -> None:
    turn: Turn = (await begin(store, asks(), create=True)).turn
    await store.clear("s", "ann")
    await store.checkpoint([(turn.number, "late", 1)])
    await store.end_turn(replace(turn, state="complete"))
    assert await store.turns("s", "ann", limit=9) == Page([], None)


async def test_a_store_that_answers_is_there(store: Store) -> None:
    await store.ping()


async def test_the_first_message_makes_its_session(store: Store) -> None:
    asked = asks("s", "What is a tailrace?", key="k", now=1000.5)
    begun = await begin(store, asked, create=True)
    session = Session("s", "ann", "What is a tailrace?", turns=1, created=1000.5, updated=1000.5)
    turn = Turn(begun.turn.number, "s", asked.stream_id, "k", "What is a tailrace?", "demo", 1000.5)
    assert begun == Begun(turn, session, context=(), new_session=True)
    assert turn.state == "generating"
    assert await store.session("s", "ann") == session
    assert list((await store.turns("s", "ann", limit=9)).items) == [turn]
    assert await store.count("ann") == 1


async def test_a_session_was_last_updated_when_its_last_reply_ended(store: Store) -> None:
    async def updated(owner: str) -> float:
        session = await store.session("s", owner)
        assert session is not None
        return session.updated

    turn = (await begin(store, asks(), create=True)).turn
    await begin(store, asks(), "bob", create=True)
    ended = replace(turn, state="complete", seconds=8.0)
    await store.end_turn(ended)
    assert (await updated("ann"), await updated("bob")) == (1008.5, 1000.5)
    await begin(store, asks(now=2000.5))
    await store.end_turn(ended)  # as after an outage of the database
    assert await updated("ann") == 2000.5


async def test_a_later_message_comes_with_what_was_said_before(store: Store) -> None:
    turns = []
    for text in ("one", "two", "three"):
        turn = (await begin(store, asks(message=text), create=text == "one")).turn
        turns.append(replace(turn, state="complete", reply=text.upper()))
        await store.end_turn(turns[-1])
    begun = await begin(store, asks(message="four", now=2000.5), context_turns=2)
    assert list(begun.context) == turns[1:]
    assert begun.session == Session("s", "ann", "one", turns=4, created=1000.5, updated=2000.5)
    assert begun.turn.number > turns[-1].number
    assert list((await begin(store, asks())).context)[:3] == turns


async def test_a_session_made_before_is_called_by_its_first_message(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    assert (await begin(store, asks(message="First"))).session.title == "First"
    assert (await begin(store, asks(message="Second"))).session.title == "First"


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Hello\nthere", "Hello"),
        ("\n  Hello \r\nthere", "Hello"),
        ("x" * 100, "x" * 80),
        ("y" * 79 + " z", "y" * 79),
        (" \n ", ""),
    ],
)
async def test_a_title_is_the_beginning_of_the_first_line(message: str, title: str) -> None:
    assert asks(message=message).title == title


async def test_a_session_that_is_not_there_or_another_s(store: Store) -> None:
    await store.create_session("s", "bob", 1.0, limit=9)
    for session_id in ("s", "nowhere"):
        with pytest.raises(SessionNotFound, match=f"expected a session of this owner, but got '{session_id}'"):
            await begin(store, asks(session_id))
    assert (await store.turns("s", "ann", limit=9)).items == []


async def test_a_session_that_is_not_there_begins_on_demand_and_only_then(store: Store) -> None:
    assert (await begin(store, asks("mine"), create=True)).new_session
    assert not (await begin(store, asks("mine"), create=True)).new_session
    assert await store.count("ann") == 1


async def test_a_key_stands_for_its_turn(store: Store) -> None:
    turn = (await begin(store, asks(key="k"), create=True)).turn
    assert await store.known_turn("k", "ann") == turn
    assert await store.known_turn("k", "bob") is None
    assert await store.known_turn("other", "ann") is None


async def test_a_session_has_only_so_many_turns(store: Store) -> None:
    await begin(store, asks(), create=True)
    begun = await begin(store, asks(), turn_limit=2)
    with pytest.raises(SessionFull, match="expected fewer than 2 turns in one session") as refused:
        await begin(store, asks(), turn_limit=2)
    assert refused.value.limit == 2
    assert await store.session("s", "ann") == begun.session


async def test_an_owner_with_all_its_sessions_begins_no_other(store: Store) -> None:
    await begin(store, asks("a"), create=True, session_limit=1)
    with pytest.raises(SessionLimit):
        await begin(store, asks("b"), create=True, session_limit=1)
    assert await store.session("b", "ann") is None
    assert await store.count("ann") == 1
    await begin(store, asks("a"), session_limit=1)


async def test_a_repeated_key_gets_the_turn_that_it_began(store: Store) -> None:
    first = await begin(store, asks(message="Once", key="k"), create=True)
    ended = replace(first.turn, state="complete", reply="Done")
    await store.end_turn(ended)
    for retry in (asks("other", "Once", key="k"), asks("s", "Something else", key="k", now=5000.0)):
        again = await begin(store, retry, create=retry.session_id == "other", session_limit=1)
        assert again == Begun(ended, first.session, context=(), known=ended)
    assert await store.count("ann") == 1


async def test_a_key_is_its_owner_s(store: Store) -> None:
    first = await begin(store, asks("a", key="k"), "ann", create=True)
    other = await begin(store, asks("b", key="k"), "bob", create=True)
    assert other.known is None
    assert other.turn.number != first.turn.number


async def test_messages_without_a_key_are_all_different(store: Store) -> None:
    await begin(store, asks(), create=True)
    await begin(store, asks())
    session = await store.session("s", "ann")
    assert session is not None
    assert session.turns == 2


async def test_a_stream_of_another_turn_is_refused_and_nothing_kept(store: Store) -> None:
    first = asks("a")
    await begin(store, first, create=True)
    with pytest.raises(StoreError):
        await begin(store, replace(first, session_id="b"), "bob", create=True)
    assert await store.session("b", "bob") is None
    assert await store.count() == 1


# At the same time


async def test_of_retries_at_the_same_time_one_begins(store: Store) -> None:
    retries = [begin(store, asks(f"s{number}", key="k"), create=True) for number in range(12)]
    begun = await asyncio.gather(*retries)
    (first,) = [one for one in begun if one.known is None]
    assert {one.turn for one in begun} == {first.turn}
    assert {one.session.id for one in begun} == {first.session.id}
    assert await store.count("ann") == 1


async def test_of_retries_in_one_session_one_begins(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    begun = await asyncio.gather(*(begin(store, asks(key="k")) for _ in range(12)))
    assert sum(one.known is None for one in begun) == 1
    session = await store.session("s", "ann")
    assert session is not None
    assert session.turns == 1


async def test_no_limit_is_passed_by_many_at_a_time(store: Store) -> None:
    made = await asyncio.gather(
        *(begin(store, asks(f"s{number}"), create=True, session_limit=5) for number in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, SessionLimit) for one in made) == 7
    assert await store.count("ann") == len((await store.sessions("ann", limit=99)).items) == 5

    session_id = next(one.session.id for one in made if isinstance(one, Begun))
    begun = await asyncio.gather(
        *(begin(store, asks(session_id), turn_limit=5) for _ in range(12)), return_exceptions=True
    )
    assert sum(isinstance(one, SessionFull) for one in begun) == 8
    assert len((await store.turns(session_id, "ann", limit=99)).items) == 5


async def test_all_that_happens_at_once_adds_up(store: Store) -> None:
    async def live(number: int) -> None:
        session_id = f"s{number}"
        turn = (await begin(store, asks(session_id), create=True)).turn
        await store.checkpoint([(turn.number, "some", 1)])
        await store.session(session_id, "ann")
        await store.end_turn(replace(turn, state="complete", reply="all"))
        if number % 3 == 0:
            await store.clear(session_id, "ann")
        if number % 3 == 1:
            await store.delete(session_id, "ann")

    await asyncio.gather(*(live(number) for number in range(30)))
    found = (await store.sessions("ann", limit=99)).items
    assert len(found) == await store.count("ann") == 20
    assert sum(session.turns for session in found) == 10
    assert await store.interrupt_turns() == 0


async def test_who_gives_up_waiting_leaves_nothing_half_done(store: Store) -> None:
    """Each is cancelled one step of the event loop later than the one before, so all steps are hit."""
    for steps in range(40):
        task = asyncio.create_task(begin(store, asks(f"s{steps}"), create=True))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await store.ping()
    await store.interrupt_turns()  # what was begun is written before that
    found = (await store.sessions("ann", limit=99)).items
    assert len(found) == await store.count("ann")
    assert all([len((await store.turns(session.id, "ann", limit=9)).items) == session.turns == 1 for session in found])
    await begin(store, asks("after"), create=True)


# Names


async def test_a_session_keeps_the_name_that_it_was_given(store: Store) -> None:
    await store.create_session("s", "ann", 1.0, limit=9)
    renamed = await store.rename("s", "ann", "Näme")
    assert renamed == await store.session("s", "ann") == Session("s", "ann", "Näme", 0, 1.0, 1.0)
    assert (await begin(store, asks())).session.title == "Näme"
    cleared, _ = await store.clear("s", "ann") or (None, [])
    assert cleared is not None
    assert (cleared.title, cleared.turns) == ("Näme", 0)
    assert await store.rename("s", "bob", "His") is None
    assert (await store.sessions("ann", limit=9)).items[0].title == "Näme"


# Replacing


async def test_a_turn_takes_the_place_of_the_last_one(store: Store) -> None:
    first = await begin(store, asks(message="One"), create=True)
    second = await begin(store, asks(message="Two", key="k"))
    third = await begin(store, asks(message="Three", now=2000.5, replaces=second.turn.stream_id))
    assert (third.session.turns, third.session.title, third.session.updated) == (2, "One", 2000.5)
    assert list(third.context) == [first.turn]
    assert third.turn.replaces == second.turn.stream_id
    assert list((await store.turns("s", "ann", limit=9)).items) == [first.turn, third.turn]
    assert await store.find_turn(second.turn.stream_id, "ann") is None
    assert await store.known_turn("k", "ann") is None


async def test_a_turn_replaces_none_but_the_last_one(store: Store) -> None:
    first = await begin(store, asks(message="One"), create=True)
    second = await begin(store, asks(message="Two"))
    with pytest.raises(TurnNotLast, match="expected the stream of the session's last turn") as refused:
        await begin(store, asks(replaces=first.turn.stream_id))
    assert (refused.value.stream_id, refused.value.last) == (first.turn.stream_id, second.turn.stream_id)
    with pytest.raises(SessionNotFound):
        await begin(store, asks("other", replaces=first.turn.stream_id), create=True)
    with pytest.raises(SessionNotFound):
        await begin(store, asks(replaces=second.turn.stream_id), "bob", create=True)
    await store.clear("s", "ann")
    with pytest.raises(TurnNotLast) as refused:
        await begin(store, asks(now=9000.5, replaces=second.turn.stream_id))
    assert refused.value.last is None
    session = await store.session("s", "ann")
    assert session is not None
    assert (session.turns, session.updated) == (0, 1000.5)


async def test_a_full_session_still_takes_a_replacement(store: Store) -> None:
    first = await begin(store, asks(), create=True)
    again = await begin(store, asks(message="Edited", replaces=first.turn.stream_id), turn_limit=1)
    assert (again.session.turns, again.session.title) == (1, "Edited")


async def test_of_several_replacements_at_once_one_happens(store: Store) -> None:
    first = await begin(store, asks(), create=True)
    new = [asks(message=f"Edit {number}", replaces=first.turn.stream_id) for number in range(4)]
    results = await asyncio.gather(*(begin(store, turn) for turn in new), return_exceptions=True)
    [begun] = [result for result in results if isinstance(result, Begun)]
    assert len([result for result in results if isinstance(result, TurnNotLast)]) == 3
    assert list((await store.turns("s", "ann", limit=9)).items) == [begun.turn]


# Several workers


async def test_a_session_answers_at_one_worker_at_a_time(store: Store) -> None:
    first = await begin(store, asks(key="k", worker="one"), create=True)
    for other in (asks(worker="two"), asks(worker="two", replaces=first.turn.stream_id)):
        with pytest.raises(
            SessionRunning, match=f"nobody answers in session 's', but got the stream '{first.turn.stream_id}'"
        ):
            await begin(store, other)
    assert (await begin(store, asks(key="k", worker="two"))).known == first.turn
    # A worker knows what it runs itself.
    assert (await begin(store, asks(worker="one"))).session.turns == 2
    for turn in (await store.turns("s", "ann", limit=9)).items:
        await store.end_turn(replace(turn, state="complete"))
    assert (await begin(store, asks(worker="two"))).turn.worker == "two"


async def test_of_two_workers_that_are_asked_at_once_one_answers(store: Store) -> None:
    async def ask(worker: str, key: str | None) -> str | None:
        try:
            begun = await begin(store, asks(key=key, worker=worker), create=True)
        except SessionRunning as running:
            return running.stream_id
        return begun.turn.stream_id

    for key in (None, "key"):
        streams = await asyncio.gather(*(ask(worker, key) for worker in ("one", "two", "three")))
        assert len(set(streams)) == 1
        (turn,) = (await store.turns("s", "ann", limit=1)).items
        assert await store.end_turn(replace(turn, state="complete"))
    assert (await store.session("s", "ann")).turns == 2  # type: ignore[union-attr]


async def test_the_turns_of_a_dead_worker_are_found(store: Store) -> None:
    turns = {
        worker: (await begin(store, asks(f"{owner}{worker}", worker=worker), owner, create=True)).turn
        for owner, worker in (("ann", "one"), ("bob", "two"), ("ann", None))
    }
    assert await store.workers() == {"one", "two", None}
    for owner, worker in (("ann", "one"), ("bob", "two"), ("ann", None)):
        assert await store.left_by(worker) == [(owner, turns[worker])]
    running = {(turn.session_id, turn.stream_id, turn.worker) for turn in await store.running("ann")}
    assert running == {(turns[worker].session_id, turns[worker].stream_id, worker) for worker in ("one", None)}
    assert await store.interrupt_turn(replace(turns["one"], reply="some"))
    assert not await store.interrupt_turn(turns["one"])
    (found,) = (await store.turns("annone", "ann", limit=1)).items
    assert (found.state, found.reply) == ("interrupted", "some")
    # A worker that was only taken for dead knows better.
    assert await store.end_turn(replace(turns["one"], state="complete"))
    assert await store.left_by("one") == []
    assert await store.workers() == {"two", None}


async def test_what_is_removed_while_it_is_generated_is_told(store: Store) -> None:
    for remove in (store.clear, store.delete):
        ended = (await begin(store, asks(), create=True)).turn
        await store.end_turn(replace(ended, state="complete"))
        running = (await begin(store, asks())).turn
        removed = await remove("s", "ann")
        assert removed is not None
        assert removed[-1:] == [running.stream_id] or removed[1] == [running.stream_id]
        assert not await store.end_turn(replace(running, state="complete"))

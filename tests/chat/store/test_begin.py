"""How a turn begins: all of it or nothing, also when many begin at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tailrace.chat.sessions import Session, Turn
from tailrace.chat.store import Begun, SessionFull, SessionLimit, SessionNotFound, Store, StoreError

from .asking import asks, begin


async def test_the_first_message_makes_its_session(store: Store) -> None:
    asked = asks("s", "What is a tailrace?", key="k", now=1000.5)
    begun = await begin(store, asked, new_session=True)
    session = Session("s", "ann", "What is a tailrace?", turns=1, created=1000.5, updated=1000.5)
    turn = Turn(begun.turn.number, "s", asked.stream_id, "k", "What is a tailrace?", "demo", 1000.5)
    assert begun == Begun(turn, session, context=())
    assert turn.state == "generating"
    assert await store.session("s", "ann") == session
    assert list((await store.turns("s", limit=9)).items) == [turn]
    assert await store.count("ann") == 1


async def test_a_later_message_comes_with_what_was_said_before(store: Store) -> None:
    turns = []
    for text in ("one", "two", "three"):
        turn = (await begin(store, asks(message=text), new_session=text == "one")).turn
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
    assert (await store.turns("s", limit=9)).items == []


async def test_a_session_has_only_so_many_turns(store: Store) -> None:
    await begin(store, asks(), new_session=True)
    begun = await begin(store, asks(), turn_limit=2)
    with pytest.raises(SessionFull, match="expected fewer than 2 turns of one session") as refused:
        await begin(store, asks(), turn_limit=2)
    assert refused.value.limit == 2
    assert await store.session("s", "ann") == begun.session


async def test_an_owner_with_all_its_sessions_begins_no_other(store: Store) -> None:
    await begin(store, asks("a"), new_session=True, session_limit=1)
    with pytest.raises(SessionLimit):
        await begin(store, asks("b"), new_session=True, session_limit=1)
    assert await store.session("b", "ann") is None
    assert await store.count("ann") == 1
    await begin(store, asks("a"), session_limit=1)


async def test_a_repeated_key_gets_the_turn_that_it_began(store: Store) -> None:
    first = await begin(store, asks(message="Once", key="k"), new_session=True)
    ended = replace(first.turn, state="complete", reply="Done")
    await store.end_turn(ended)
    for retry in (asks("other", "Once", key="k"), asks("s", "Something else", key="k", now=5000.0)):
        again = await begin(store, retry, new_session=retry.session_id == "other", session_limit=1)
        assert again == Begun(ended, first.session, context=(), known=ended)
    assert await store.count("ann") == 1


async def test_a_key_is_its_owner_s(store: Store) -> None:
    first = await begin(store, asks("a", key="k"), "ann", new_session=True)
    other = await begin(store, asks("b", key="k"), "bob", new_session=True)
    assert other.known is None
    assert other.turn.number != first.turn.number


async def test_messages_without_a_key_are_all_different(store: Store) -> None:
    await begin(store, asks(), new_session=True)
    await begin(store, asks())
    session = await store.session("s", "ann")
    assert session is not None
    assert session.turns == 2


async def test_a_stream_of_another_turn_is_refused_and_nothing_kept(store: Store) -> None:
    first = asks("a")
    await begin(store, first, new_session=True)
    with pytest.raises(StoreError):
        await begin(store, replace(first, session_id="b"), "bob", new_session=True)
    assert await store.session("b", "bob") is None
    assert await store.count() == 1


# At the same time


async def test_of_retries_at_the_same_time_one_begins(store: Store) -> None:
    retries = [begin(store, asks(f"s{number}", key="k"), new_session=True) for number in range(12)]
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
        *(begin(store, asks(f"s{number}"), new_session=True, session_limit=5) for number in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, SessionLimit) for one in made) == 7
    assert await store.count("ann") == len((await store.sessions("ann", limit=99)).items) == 5

    session_id = next(one.session.id for one in made if isinstance(one, Begun))
    begun = await asyncio.gather(
        *(begin(store, asks(session_id), turn_limit=5) for _ in range(12)), return_exceptions=True
    )
    assert sum(isinstance(one, SessionFull) for one in begun) == 8
    assert len((await store.turns(session_id, limit=99)).items) == 5


async def test_all_that_happens_at_once_adds_up(store: Store) -> None:
    async def live(number: int) -> None:
        session_id = f"s{number}"
        turn = (await begin(store, asks(session_id), new_session=True)).turn
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
        task = asyncio.create_task(begin(store, asks(f"s{steps}"), new_session=True))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await store.ping()
    await store.interrupt_turns()  # what was begun is written before that
    found = (await store.sessions("ann", limit=99)).items
    assert len(found) == await store.count("ann")
    assert all([len((await store.turns(session.id, limit=9)).items) == session.turns == 1 for session in found])
    await begin(store, asks("after"), new_session=True)

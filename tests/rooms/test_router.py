"""The routes of rooms: reading, publishing, members and what is refused."""

from __future__ import annotations

import asyncio
import gc
from typing import Annotated, Any

import pytest
import websockets
from fastapi import Depends, Header, HTTPException
from pydantic_core import from_json, to_json

from tailrace import LogClosed, Retention, StoreUnavailable
from tailrace.client import tail
from tailrace.rooms import RoomLimits, rooms_router
from tailrace.rooms.presence import Presence
from tests.asgi.apps import small_engine
from tests.raw import BOUND
from tests.rooms.apps import House, until, until_gone

pytestmark = pytest.mark.usefixtures("silent_loop")

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


async def test_people_talk_in_a_room_and_nobody_else_hears_them() -> None:
    async with House().open() as house, house.enter("red", "ada") as ada, house.enter("blue", "eve") as eve:
        assert await ada.hear() == ("join", "ada")
        assert await eve.hear() == ("join", "eve")
        async with house.enter("red", "bob") as bob:
            assert await bob.hear() == ("join", "ada")
            assert await bob.hear() == ("join", "bob")
            assert await ada.hear() == ("join", "bob")
            await ada.say("hello")
            await ada.say('{"a": 1}')
            assert await bob.hear() == ("message", "hello")
            assert await bob.hear() == ("message", {"a": 1})
            assert await ada.hear() == ("message", "hello")
            assert await ada.hear() == ("message", {"a": 1})
            assert await house.members("red") == ["ada", "bob"]
        assert await ada.hear() == ("leave", "bob")
        assert await house.members("red") == ["ada"]
        await eve.say("alone")
        assert await eve.hear() == ("message", "alone")


async def test_a_message_tells_who_sent_it_and_when() -> None:
    async with House().open() as house:
        answer = await house.client.post("/rooms/red", params={"name": "ada"}, json="hello")
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        [said] = (await house.client.get("/rooms/red")).json()["data"]
        assert said == {"member": "ada", "message": "hello", "time": said["time"]}
        assert said["time"].endswith("Z")


async def test_a_text_is_one_message() -> None:
    async with House().open() as house:
        for headers in (TEXT, {**TEXT, "Origin": house.url}):
            assert (await house.client.post("/rooms/red", content="hé\n1\n", headers=headers)).status_code == 202
        assert [said["message"] for said in (await house.client.get("/rooms/red")).json()["data"]] == ["hé\n1"] * 2


async def test_a_reader_goes_on_where_it_left() -> None:
    async with House().open() as house:
        async with house.enter("red", "ada") as ada:
            await ada.until("join", "ada")
            cursor = ada.cursor
        for number in range(3):
            await house.client.post("/rooms/red", json=number)
        async with house.enter("red", "ada", after=cursor) as ada:
            assert await ada.until("join", "ada") == [
                ("leave", "ada"),
                *(("message", number) for number in range(3)),
                ("join", "ada"),
            ]


async def test_a_first_join_gets_the_newest_events() -> None:
    async with House(history=2).open() as house:
        for number in range(5):
            await house.client.post("/rooms/red", json=number)
        async with house.enter("red") as guest:
            assert await guest.hear() == ("message", 3)
            assert await guest.hear() == ("message", 4)
        async with asyncio.timeout(BOUND), tail(f"{house.url}/rooms/red") as events:
            assert (await anext(events)).data["message"] == 3


async def test_a_browser_comes_back_with_the_id_of_its_last_event() -> None:
    async with House().open() as house:
        for number in range(3):
            await house.client.post("/rooms/red", json=number)
        log = (await house.router.room("red")).log
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(log.cursor(2))}
        async with asyncio.timeout(BOUND), house.client.stream("GET", "/rooms/red", headers=headers) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == f"id: {log.cursor(3)}"
            assert await anext(lines) == "event: message"


async def test_a_member_without_a_proper_name_is_the_applications_mistake() -> None:
    async with House(member=lambda: 7).open() as house:
        assert (await house.client.get("/rooms/red")).status_code == 500
    assert len(house.router.rooms) == 0


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 129])
async def test_names_that_no_member_has(name: str) -> None:
    async with House().open() as house:
        for method in ("GET", "POST"):
            answer = await house.client.request(method, "/rooms/red", params={"name": name}, json=1)
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_member")


async def test_a_cursor_of_what_is_gone_is_a_reset() -> None:
    async with House(retention=Retention(count=2)).open() as house:
        async with house.enter("red") as guest:
            await house.client.post("/rooms/red", json=0)
            await guest.hear()
        for number in range(10):
            await house.client.post("/rooms/red", json=number)
        async with house.enter("red", after=guest.cursor) as guest:
            assert from_json(await guest.connection.recv())["event"] == "reset"


async def test_several_connections_of_a_member_count_once() -> None:
    async with House().open() as house, house.enter("red", "ada") as first:
        assert await first.hear() == ("join", "ada")
        async with house.enter("red", "ada"):
            assert await house.members("red") == ["ada"]
        await first.say("still here")
        assert await first.hear() == ("message", "still here")


async def test_a_member_that_comes_back_in_time_has_not_left() -> None:
    async with House(leave_delay=BOUND).open() as house, house.enter("red", "bob") as bob:
        for _ in range(3):
            async with house.enter("red", "ada") as ada:
                await ada.say("hi")
                await ada.until("message", "hi")
        assert await house.members("red") == ["ada", "bob"]
        heard = [await bob.hear() for _ in range(5)]
        assert heard == [("join", "bob"), ("join", "ada"), *[("message", "hi")] * 3]


async def test_words_that_are_no_json_are_texts() -> None:
    async with House().open() as house, house.enter("red") as guest:
        for word in ("NaN", "-Infinity", "[NaN]"):
            await guest.say(word)
            assert await guest.hear() == ("message", word)
        assert (await house.client.post("/rooms/red", content=b"NaN", headers=JSON)).status_code == 400


async def test_who_asks_for_a_document_does_not_join() -> None:
    async with House().open() as house, house.enter("red", "ada") as ada:
        assert await ada.hear() == ("join", "ada")
        assert (await house.client.get("/rooms/red", params={"name": "bob"})).status_code == 200
        refused = await house.client.get("/rooms/red", params={"name": "bob"}, headers={"Accept": "image/png"})
        assert refused.status_code == 406
        await ada.say("hi")
        assert await ada.hear() == ("message", "hi")


async def test_somebody_without_a_name_reads_unseen() -> None:
    async with House().open() as house, house.enter("red") as guest:
        await guest.say("psst")
        assert await guest.hear() == ("message", "psst")
        assert await house.members("red") == []


async def test_a_room_without_presence() -> None:
    async with House(presence=False).open() as house, house.enter("red", "ada") as ada:
        await ada.say("hello")
        assert await ada.hear() == ("message", "hello")
        assert (await house.client.get("/rooms/red/members")).status_code == 404


async def test_a_room_that_nobody_uses_costs_nothing() -> None:
    async with House().open() as house:
        gc.disable()
        try:
            async with house.enter("red") as guest, house.enter("blue", "ada") as ada:
                await house.client.get("/rooms/green")
                await ada.say("hello")
                await ada.until("message", "hello")
                assert len(house.router.rooms) == 2
                await guest.connection.close()
            await until(lambda: not house.engine.statistics().readers)
            await until(lambda: not len(house.router.rooms))
        finally:
            gc.enable()
        for name in ("red", "green", "red members", "green members", "blue members"):
            await until_gone(house.engine, f"/rooms/{name}")
        assert await house.engine.find("/rooms/blue") is not None  # it has a history


async def test_a_room_that_is_idle_is_forgotten() -> None:
    async with House(engine=small_engine(keep_idle=0.05, heartbeat=0.1)).open() as house:
        async with house.enter("red", "ada") as ada:
            await ada.say("hello")
            await ada.until("message", "hello")
        await until(lambda: not len(house.router.rooms))
        gc.collect()  # the server's end of a connection is a cycle, which holds the logs
        for name in ("red", "red members"):
            await until_gone(house.engine, f"/rooms/{name}")
        assert (await house.client.get("/rooms/red")).json()["data"] == []


async def test_a_quiet_room_with_members_is_kept() -> None:
    engine = small_engine(keep_idle=0.05, heartbeat=0.1)
    async with House(engine=engine).open() as house, house.enter("red", "ada") as ada:
        await ada.hear()
        await asyncio.sleep(0.4)
        assert await house.members("red") == ["ada"]


async def test_a_room_whose_members_are_lost_works_on() -> None:
    async with House().open() as house, house.enter("red", "ada") as ada, house.enter("red", "bob"):
        await ada.until("join", "bob")
        log = await house.engine.find("/rooms/red members")
        assert log is not None
        await house.engine.forget(log)
        async with house.enter("red", "cy"):
            await ada.until("join", "cy")
            assert await house.members("red") == ["cy"]
        assert await ada.hear() == ("leave", "cy")


async def test_a_room_that_is_lost_while_members_are_in_it() -> None:
    async with House().open() as house, house.enter("red", "ada") as ada, house.enter("red", "bob") as bob:
        await ada.until("join", "bob")
        for name in ("red members", "red"):
            log = await house.engine.find(f"/rooms/{name}")
            assert log is not None
            await house.engine.forget(log)
        for guest in (ada, bob):
            with pytest.raises(websockets.ConnectionClosed):
                await guest.until("message", "what nobody says")


async def test_rooms_that_were_used_longest_ago_are_forgotten() -> None:
    async with House(limits=RoomLimits(rooms=2)).open() as house:
        for room in ("red", "blue", "red", "green"):
            assert (await house.client.post(f"/rooms/{room}", json=room)).status_code == 202
        assert await house.engine.find("/rooms/blue") is None
        assert (await house.client.get("/rooms/red")).json()["data"][1]["message"] == "red"


async def test_rooms_in_use_are_not_forgotten() -> None:
    async with House(limits=RoomLimits(rooms=2)).open() as house, house.enter("red") as guest:
        await guest.say("hello")
        await guest.until("message", "hello")
        for room in ("blue", "green", "yellow"):
            assert (await house.client.post(f"/rooms/{room}", json=room)).status_code == 202
        await guest.say("still here")
        assert await guest.hear() == ("message", "still here")


async def test_the_end_of_the_only_process_waits_for_nobody_to_come_back() -> None:
    async with House(leave_delay=10 * BOUND).open() as house, house.enter("red", "ada") as ada:
        await ada.hear()
        house.engine.drain()
        async with asyncio.timeout(BOUND):
            await house.engine.readers.wait_none()
            await until(lambda: not len(house.router.rooms))


async def test_a_path_with_other_parameters() -> None:
    async with House(path="/{team}/{floor:int}/{room}").open() as house:
        assert (await house.client.post("/a%20b/3/red", json="hello")).status_code == 202
        room = await house.router.room("red", team="a b", floor=3)
        assert (room.name, room.log.name, room.log.top) == ("red", "/a%20b/3/red", 1)
        refused = await house.client.get(f"/{'a' * 600}/3/red")
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_room_name")


# Who may do what


def reader(x_key: Annotated[str, Header()] = "") -> None:
    if x_key != "secret":
        raise HTTPException(403, "not for you")


async def test_guards_run_before_a_socket_is_accepted() -> None:
    async with House(read=[Depends(reader)]).open() as house:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with house.enter("red"):
                pass  # pragma: no cover
        assert refused.value.response.status_code == 403
        assert (await house.client.get("/rooms/red")).status_code == 403
        assert (await house.client.get("/rooms/red/members")).status_code == 403
        assert (await house.client.post("/rooms/red", json=1)).status_code == 202


async def test_a_member_that_may_not_come_in() -> None:
    async with House().open() as house:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with house.enter("red", "nobody"):
                pass  # pragma: no cover
        assert refused.value.response.status_code == 401
        assert await house.members("red") == []


async def test_who_may_only_read_is_told_so() -> None:
    async with House(write=[Depends(reader)]).open() as house, house.enter("red") as guest:
        await guest.say("hello")
        frame = from_json(await guest.connection.recv())
        assert frame == {"event": "refused", "data": {"code": "http_403", "status": 403, "message": "not for you"}}


async def test_a_page_of_another_site_gets_no_socket() -> None:
    async with House().open() as house:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(
                f"{house.url.replace('http', 'ws')}/rooms/red", additional_headers={"Origin": "https://evil.example"}
            ):
                pass  # pragma: no cover
        assert refused.value.response.status_code == 403


# Bounds


@pytest.mark.parametrize("name", ["a" * 65, "-a", "%20", "a%00b", "ä"])
async def test_names_that_no_room_has(name: str) -> None:
    async with House().open() as house:
        answer = await house.client.get(f"/rooms/{name}")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_room_name")


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"no", JSON, 400, "bad_message"),
        (b"\xff", LINES, 400, "bad_message"),
        (b"\n", LINES, 400, "bad_message"),
        (b"1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        (b"1", {**TEXT, "Origin": "https://evil.example"}, 415, "unsupported_media_type"),
        (b" \n", TEXT, 400, "bad_message"),
        (b"\xff", TEXT, 400, "bad_message"),
        (b"x" * 100, TEXT, 413, "message_too_large"),
        (b"x" * 500, TEXT, 413, "body_too_large"),
        (to_json("x" * 100), JSON, 413, "message_too_large"),
        (b"1\n" * 300, LINES, 413, "body_too_large"),
    ],
)
async def test_bad_messages(content: bytes, headers: Any, status: int, code: str) -> None:
    async with House(limits=RoomLimits(message=50, body=400)).open() as house:
        answer = await house.client.post("/rooms/red", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert (await house.client.get("/rooms/red")).json()["data"] == []


async def test_lines_are_accepted_together_or_not_at_all() -> None:
    async with House(limits=RoomLimits(message=50)).open() as house:
        answer = await house.client.post("/rooms/red", content=b"1\ntwo\n", headers=LINES)
        assert answer.json() == {"accepted": 2}
        refused = await house.client.post("/rooms/red", content=b"3\n" + to_json("x" * 100), headers=LINES)
        assert refused.status_code == 413
        assert [said["message"] for said in (await house.client.get("/rooms/red")).json()["data"]] == [1, "two"]


async def test_a_member_that_floods_is_slowed() -> None:
    async with House(limits=RoomLimits(rate=1, burst=3)).open() as house:
        ada = {"name": "ada"}
        for _ in range(3):
            assert (await house.client.post("/rooms/red", json=1, params=ada)).status_code == 202
        refused = await house.client.post("/rooms/red", json=1, params=ada)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_messages")
        assert refused.headers["retry-after"] == "1"
        assert (await house.client.post("/rooms/red", json=1, params={"name": "bob"})).status_code == 202


async def test_a_room_in_which_many_flood_is_slowed() -> None:
    async with House(limits=RoomLimits(room_rate=1, room_burst=3)).open() as house:
        statuses = [
            (await house.client.post("/rooms/red", json=1, params={"name": name})).status_code for name in "abcd"
        ]
        assert statuses == [202, 202, 202, 429]
        assert (await house.client.post("/rooms/blue", json=1, params={"name": "d"})).status_code == 202


async def test_a_room_that_is_full() -> None:
    async with House(limits=RoomLimits(members=1)).open() as house, house.enter("red", "ada") as ada:
        await ada.hear()
        answer = await house.client.get("/rooms/red", headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.json()["code"]) == (503, "room_full")


async def test_too_many_rooms_in_use() -> None:
    async with House(limits=RoomLimits(rooms=1)).open() as house, house.enter("red", "ada") as ada:
        await ada.hear()
        answer = await house.client.get("/rooms/blue")
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_rooms")
        assert (await house.client.get("/rooms/red")).status_code == 200


async def test_a_refused_message_over_a_socket_names_the_reason() -> None:
    async with House(limits=RoomLimits(message=50)).open() as house, house.enter("red") as guest:
        await guest.say("x" * 100)
        frame = from_json(await guest.connection.recv())
        assert frame["event"] == "refused"
        assert frame["data"]["code"] == "message_too_large"
        await guest.say("short")
        assert await guest.hear() == ("message", "short")


# From code


async def test_an_application_publishes_and_reads() -> None:
    house = House()
    async with house.open():
        room = await house.router.room("red")
        await room.publish("hello", "you", member="system")
        async with house.enter("red") as guest:
            assert await guest.hear() == ("message", "hello")
            assert await guest.hear() == ("message", "you")
        with await room.join() as reader:
            entries = await reader.read()
            assert [entry.data["member"] for entry in entries] == ["system", "system"]
        with await room.join(str(room.log.cursor(1))) as reader:
            assert [entry.data["message"] for entry in await reader.read()] == ["you"]
        statistics = await room.statistics()
        assert (statistics.members, statistics.connections, statistics.log.top) == (0, 0, 2)


async def test_a_router_without_an_engine_cannot_be_asked_for_rooms() -> None:
    with pytest.raises(RuntimeError, match="expected a router with an engine"):
        await rooms_router().room("red")


def test_a_path_without_a_room() -> None:
    with pytest.raises(ValueError, match="expected a path with a parameter for the room"):
        rooms_router("/rooms")


async def unavailable(presence: Presence, member: str = "") -> list[str]:
    raise StoreUnavailable("red", "the test refuses it")


async def closed(presence: Presence, member: str = "") -> list[str]:
    presence.log.lose("epoch_changed")
    raise LogClosed("red", "epoch_changed")


@pytest.mark.parametrize(("error", "code"), [(unavailable, "store_unavailable"), (closed, "entries_lost")])
async def test_a_room_whose_store_fails_or_has_lost_it_is_out_of_service(
    error: Any, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with House().open() as house:
        monkeypatch.setattr(Presence, "enter", error)
        monkeypatch.setattr(Presence, "members", error)
        for path in ("/rooms/red?name=ada&stream=true", "/rooms/red/members"):
            answer = await house.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, code)
            assert answer.headers["Retry-After"] == "1"
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with house.enter("red", "ada"):
                pass  # pragma: no cover
        assert refused.value.response.status_code == 503
        monkeypatch.undo()
        await house.until_members("red")


async def test_that_a_room_is_closed_is_no_fault_of_the_store() -> None:
    async with House().open() as house:
        await (await house.router.room("red")).log.close()
        with pytest.raises(LogClosed):
            await (await house.router.room("red")).publish("hello")
        assert (await house.client.post("/rooms/red", json="hello")).status_code == 500

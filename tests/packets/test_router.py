"""The routes of packet sessions: what they refuse, whom a session belongs to, and how it is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import pytest
import websockets
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from tailrace import Retention
from tailrace.client import tail
from tailrace.cursor import new_stream_id
from tailrace.packets import (
    ClientSession,
    PacketLimits,
    PacketType,
    SocketPacket,
    on_connect,
    on_disconnect,
    on_packet,
    packets_router,
)
from tests.asgi.apps import small_engine
from tests.packets.apps import LINES, Recorded, client_of, data, echo, opened, resumed, say
from tests.packets.test_session import nothing
from tests.raw import BOUND

pytestmark = pytest.mark.usefixtures("silent_loop")

JSON = {"Content-Type": "application/json"}
UNKNOWN = "A" * 22
LIMITS = PacketLimits(packet=100, body=400, pending=4, pending_bytes=200, sessions=2, seconds=0.05)


def user(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


def as_user(name: str) -> dict[str, str]:
    return {"X-User": name}


# Refusals


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "detail"),
    [
        (b"", JSON, 400, "bad_json", "expected JSON, but got b''"),
        (b"no", JSON, 400, "bad_json", "expected JSON, but got b'no'"),
        (b'{"packet_type":"DATA","payload":NaN}', JSON, 400, "bad_json", "expected JSON"),
        (b'{"packet_type":"DATA","payload":"a\nb"}', JSON, 400, "bad_json", "expected JSON"),
        (
            b'{"packet_type":"DATA",%b}' % b",".join(b'"%d":1' % n for n in range(9)),
            JSON,
            422,
            "bad_packet",
            "9 mistakes",
        ),
        (b"[" * 90, JSON, 400, "bad_json", "expected JSON"),
        (b"[]", JSON, 422, "bad_packet", "expected a packet, but: Input should be"),
        (b"{}", JSON, 422, "bad_packet", "packet_type: Field required"),
        (b'{"packet_type":"DATA","reply":1}', JSON, 422, "bad_packet", "reply: Extra inputs are not permitted"),
        (b'{"packet_type":"DTAA"}', JSON, 422, "unknown_packet_type", "DATA, ERROR, EVENT, PING, REQUEST, RESULT"),
        (b'{"packet_type":"DATA","payload":"%b"}' % (b"x" * 100), JSON, 413, "packet_too_large", "at most 100 bytes"),
        (b'{"packet_type":"DATA"}' + b" " * 400, JSON, 413, "body_too_large", "at most 400 bytes, but got 422"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type", "but got 'text/plain'"),
        (b"{}", {}, 415, "unsupported_media_type", "but got ''"),
        (b"\n \n", {"Content-Type": "application/x-ndjson"}, 400, "bad_json", "an empty body"),
        (b"{}\n" * 5, {"Content-Type": "application/x-ndjson"}, 413, "body_too_large", "at most 4 packets"),
        (
            b'{"packet_type":"DATA"}\n{"packet_type":1}',
            {"Content-Type": "application/x-ndjson"},
            422,
            "bad_packet",
            "line 2: expected a packet, but: packet_type",
        ),
    ],
)
async def test_bad_bodies(content: bytes, headers: Any, status: int, code: str, detail: str) -> None:
    recorded = Recorded(limits=LIMITS)
    async with client_of(recorded) as client:
        refused = await client.post("/stream", content=content, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert detail in refused.json()["detail"]
        assert recorded.calls == []
        async with opened(client, data(0)) as talk:
            refused = await client.post(talk.address, content=content, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            await talk.packet()
            await talk.say(data("bye"))
            assert [packet["payload"] for packet in await talk.rest()] == ["bye"]
    assert recorded.calls[:3] == ["connect", 0, "bye"]


async def test_a_refusal_for_clients_that_read_packets() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        refused = await talk.say({"packet_type": "DTAA", "id": "7"}, headers=LINES)
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/x-ndjson"
        assert refused.content.endswith(b"}\n")
        packet = from_json(refused.content)
        assert packet["packet_type"] == "ERROR"
        assert packet["reply_to"] == "7"
        assert packet["payload"]["status"] == 422
        assert packet["payload"]["code"] == "unknown_packet_type"
        refused = await talk.say({"packet_type": 1, "id": "8"}, headers=LINES)
        assert from_json(refused.content)["reply_to"] == "8"


async def test_a_body_without_a_length_is_bounded_too() -> None:
    async def parts(first: bytes, rest: bytes) -> Any:
        yield first
        yield rest

    recorded = Recorded(limits=LIMITS)
    async with client_of(recorded) as client:
        refused = await client.post("/stream", content=parts(b" " * 300, b" " * 300), headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_comes_too_slowly() -> None:
    async def parts() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    recorded = Recorded(limits=LIMITS)
    async with client_of(recorded) as client, asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(
            b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_body_that_is_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, asyncio.timeout(BOUND):
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(
            b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with opened(client, data("bye")) as talk:
            await talk.rest()
    assert "Exception in ASGI application" not in caplog.text


async def test_words_that_json_does_not_have_are_texts_inside_of_strings() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data("NaN, Infinity")) as talk:
        assert (await talk.packet())["payload"] == "NaN, Infinity"


async def test_each_line_of_a_body_is_read_for_itself() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data("first")) as talk:
        lines = [data("AP8=", encoding="base64"), data("NaN"), data('"encoding"')]
        assert (await talk.say(*lines)).status_code == 202
        body = b'{"packet_type":"DATA","payload":"NaN"}\n{"packet_type":"DATA","payload":NaN}'
        refused = await client.post(talk.address, content=body, headers={"Content-Type": "application/x-ndjson"})
        assert (refused.status_code, refused.json()["detail"][:22]) == (400, "line 2: expected JSON,")
        await talk.say(data("bye"))
        await talk.rest()
    assert recorded.calls[1:] == ["first", b"\0\xff", "NaN", '"encoding"', "bye", "disconnect"]


async def test_a_client_that_floods() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await released.wait()
        await echo(session, packet)

    released = asyncio.Event()
    recorded = Recorded(read, limits=LIMITS)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        for number in range(1, 4):
            assert (await talk.say(data(number))).status_code == 202
        refused = await talk.say(data(4))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_packets")
        assert refused.headers["retry-after"] == "1"
        released.set()
        await recorded.until(3)
        assert (await talk.say(data("bye"))).status_code == 202
        assert [packet["payload"] for packet in await talk.rest()] == [0, 1, 2, 3, "bye"]


async def test_a_client_that_floods_with_few_large_packets() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await asyncio.Event().wait()

    recorded = Recorded(read, limits=LIMITS)
    large = data("x" * 60)
    async with client_of(recorded) as client, opened(client, large) as talk:
        assert [(await talk.say(large)).status_code for _ in range(2)] == [202, 202]
        assert (await talk.say(large)).status_code == 429


async def test_the_last_packets_of_an_ended_session_are_accepted_again() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        last = [data(1, id="1"), data("bye", id="2")]
        assert (await talk.say(*last)).status_code == 202
        await talk.rest()
        await recorded.until("disconnect")
        for _ in range(2):
            assert (await talk.say(*last)).status_code == 202
        for other in (last[:1], last[1:], [*last, data(3, id="3")], [data("bye")], [data("bye", id="3")]):
            refused = await talk.say(*other)
            assert (refused.status_code, refused.json()["code"]) == (410, "session_ended")
    assert recorded.calls == ["connect", 0, 1, "bye", "disconnect"]


async def test_packets_without_ids_are_handled_once_if_their_request_has_a_key() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        for packets, key in (
            ([data(1), data(2)], "one"),
            ([data(1), data(2)], "one"),
            ([data(1), data(2)], "two"),
            ([data(3)], "one"),
            ([data("bye")], "one"),
        ):
            assert (await talk.say(*packets, headers={"Idempotency-Key": key})).status_code == 202
        await talk.rest()
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, 1, 2, 1, 2, 3, "bye", "disconnect"]


async def test_a_client_that_floods_by_many_requests_at_once() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await asyncio.Event().wait()

    recorded = Recorded(read, limits=PacketLimits(pending=10))
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        bodies = [[data(number) for number in range(10)]] * 8
        answers = [answer.status_code for answer in await asyncio.gather(*(talk.say(*body) for body in bodies))]
        assert sorted(answers) == [202, *[429] * 7]


@pytest.mark.parametrize("bound", [{"pending": 0}, {"sessions": -1}, {"packet": 2_000, "body": 1_000}])
def test_limits_that_make_no_sense(bound: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PacketLimits(**bound)


async def test_too_many_sessions() -> None:
    recorded = Recorded(limits=LIMITS)
    async with client_of(recorded) as client, opened(client, data(0)), opened(client, data(0)):
        refused = await client.post("/stream", json=data(0))
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_sessions")
        assert "retry-after" in refused.headers


async def test_sessions_that_keep_too_much_together() -> None:
    recorded = Recorded(nothing, limits=PacketLimits(kept_bytes=20_000))
    half, little = data("x" * 9_000), data("little")
    async with client_of(recorded) as client, opened(client, half) as large, opened(client, little) as small:
        assert (await large.say(half)).status_code == 202
        for refused in (await large.say(half), await small.say(data("x" * 10_000))):
            assert (refused.status_code, refused.json()["code"]) == (503, "sessions_full")
            assert "retry-after" in refused.headers
        assert (await small.say(half)).status_code == 202  # no more than its share
        refused = await client.post("/stream", json=little)
        assert (refused.status_code, refused.json()["code"]) == (503, "sessions_full")
        assert (await large.end()).status_code == 200
        assert (await small.say(half)).status_code == 202
        async with opened(client, little):
            pass


async def test_what_the_hooks_send_counts() -> None:
    recorded = Recorded(echo, engine=small_engine(heartbeat=0.01), limits=PacketLimits(kept_bytes=20_000))
    async with client_of(recorded) as client, opened(client, data("x" * 11_000)) as talk:
        await talk.packet()
        async with asyncio.timeout(BOUND):
            while (answer := await client.post("/stream", json=data("bye"))).status_code == 200:
                assert answer.json()["packet_type"] == "RESULT"
        assert answer.json()["code"] == "sessions_full"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_session_that_there_is_not(method: str) -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        answer = await client.request(method, f"/stream/{UNKNOWN}", json=data(0))
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
        assert (await client.request(method, "/stream/short", json=data(0))).status_code == 404


async def test_methods_of_the_addresses() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        answer = await client.get("/stream")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
        answer = await client.put(f"/stream/{UNKNOWN}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, DELETE, OPTIONS")
        assert (await client.options("/stream")).headers["allow"] == "POST, OPTIONS"


async def test_a_cursor_is_for_the_address_of_the_session() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        answer = await client.post("/stream", json=data(0), params={"after": f"{UNKNOWN}.0.1"})
        assert (answer.status_code, answer.json()["code"]) == (400, "unexpected_cursor")
        answer = await client.post("/stream", json=data(0), headers={"Last-Event-ID": f"{UNKNOWN}.0.1"})
        assert answer.status_code == 400
    assert recorded.calls == []


# Whom a session belongs to


async def test_a_session_belongs_to_its_principal() -> None:
    recorded = Recorded(principal=user)
    async with client_of(recorded) as client, opened(client, data(0), headers=as_user("ada")) as talk:
        assert recorded.session is not None
        assert recorded.session.principal == "ada"
        for headers in (as_user("bob"), {}):
            for method in ("GET", "POST", "DELETE"):
                answer = await client.request(method, talk.address, json=data(1), headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
        assert (await talk.say(data("bye"), headers=as_user("ada"))).status_code == 202
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "bye", "disconnect"]


async def test_dependencies_of_the_router_guard_all_addresses() -> None:
    def guard(x_key: Annotated[str, Header()] = "") -> None:
        if x_key != "secret":
            raise HTTPException(401, "who are you?")

    recorded = Recorded(dependencies=[Depends(guard)])
    key = {"X-Key": "secret"}
    async with client_of(recorded) as client:
        assert (await client.post("/stream", json=data(0))).status_code == 401
        async with opened(client, data(0), headers=key) as talk:
            for method in ("GET", "POST", "DELETE"):
                assert (await client.request(method, talk.address, json=data(1))).status_code == 401
            assert (await client.delete(talk.address, headers=key)).status_code == 200


# Idempotency keys


async def test_a_repeated_opening_reads_the_same_session() -> None:
    recorded = Recorded()
    key = {"Idempotency-Key": "k" * 22}
    async with client_of(recorded) as client, opened(client, data(0), headers=key) as talk:
        await talk.packet()
        async with opened(client, data(0), headers=key) as again:
            assert again.address == talk.address
            assert (await again.packet())["payload"] == 0
            [farewell] = await talk.rest()
            assert farewell["packet_type"] == "FAREWELL"
            assert farewell["payload"]["reason"] == "replaced"
            other = await client.post("/stream", json=data(1), headers=key)
            assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
            assert recorded.calls == ["connect", 0]


async def test_an_anonymous_key_that_can_be_guessed() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        answer = await client.post("/stream", json=data(0), headers={"Idempotency-Key": "1"})
        assert (answer.status_code, answer.json()["code"]) == (400, "weak_idempotency_key")
    assert recorded.calls == []


async def test_a_key_is_free_again_after_the_connect_hook_has_refused() -> None:
    async def connect(session: ClientSession) -> None:
        if len(recorded.calls) == 1:
            raise HTTPException(503, "not yet")

    recorded = Recorded(connect=connect)
    key = {"Idempotency-Key": "k" * 22}
    async with client_of(recorded) as client:
        assert (await client.post("/stream", json=data("bye"), headers=key)).status_code == 503
        async with opened(client, data("bye"), headers=key) as talk:
            assert [packet["payload"] for packet in await talk.rest()] == ["bye"]


async def test_equal_keys_of_two_principals_are_two_sessions() -> None:
    recorded = Recorded(principal=user)
    async with (
        client_of(recorded) as client,
        opened(client, data(0), headers={"Idempotency-Key": "1", **as_user("ada")}) as ada,
        opened(client, data(0), headers={"Idempotency-Key": "1", **as_user("bob")}) as bob,
    ):
        assert ada.address != bob.address


# Resuming


async def test_a_session_is_resumed_after_a_cursor() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        async with opened(client, data(0)) as talk:
            first = await talk.packet()
            await talk.say(data(1), data(2))
        async with resumed(talk, first["cursor"], takeover="true") as again:
            assert [(await again.packet())["payload"] for _ in range(2)] == [1, 2]
            await again.say(data("bye"))
            [last] = await again.rest()
        async with resumed(talk) as whole:
            assert [packet["payload"] for packet in await whole.rest()] == [0, 1, 2, "bye"]
        assert (await client.get(talk.address, params={"after": last["cursor"]})).status_code == 204
        foreign = await client.get(talk.address, params={"after": f"{new_stream_id()}.0.1.end"})
        [reset] = [from_json(line) for line in foreign.content.splitlines()]
        assert (reset["packet_type"], reset["payload"]["reason"]) == ("RESET", "epoch_changed")
        head = await client.head(talk.address)
        assert head.status_code == 200


async def test_a_second_reader_waits_or_takes_over() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        refused = await client.get(talk.address)
        assert (refused.status_code, refused.json()["code"]) == (409, "already_read")
        assert refused.headers["retry-after"] == "1"
        async with resumed(talk, takeover="true") as second:
            assert (await second.packet())["payload"] == 0
            [farewell] = await talk.rest()
            assert farewell["payload"] == {"reason": "replaced", "retry": 0}
            await second.say(data("bye"))
            assert [packet["payload"] for packet in await second.rest()] == ["bye"]
    assert recorded.calls[:3] == ["connect", 0, "bye"]


async def test_a_cursor_whose_packets_are_trimmed() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        for number in range(10):
            await session.send(SocketPacket(packet_type="DATA", payload=number))

    recorded = Recorded(read, retention=Retention(count=2))
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        for _ in range(10):
            last = await talk.packet()
        async with resumed(talk, last["cursor"].rpartition(".")[0] + ".1", takeover="true") as again:
            [reset] = await again.rest()
            assert reset["packet_type"] == "RESET"
            assert reset["payload"] == {"reason": "trimmed"}


# Other wires


async def test_a_session_as_server_sent_events() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        url = f"{client.base_url}/stream"
        async with asyncio.timeout(BOUND), tail(url, json=data(0)) as events:
            first = await anext(events)
            assert first.data == {"packet_type": "DATA", "payload": 0}
            assert events.address is not None
            await say(client, events.address, data("bye"))
            assert [event.data["payload"] async for event in events] == ["bye"]
            assert events.outcome is not None
            assert events.outcome.state == "done"


async def test_curl_asks_for_json_and_gets_packets() -> None:
    recorded = Recorded()
    async with (
        client_of(recorded) as client,
        opened(client, data("bye"), headers={"Accept": "application/json"}) as talk,
    ):
        assert talk.response.headers["content-type"] == "application/x-ndjson"


async def test_no_wire_fits() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        answer = await client.post("/stream", json=data(0), headers={"Accept": "image/png"})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert recorded.calls == []


# Hooks as dependencies


@asynccontextmanager
async def talking(app: FastAPI, path: str = "/stream") -> Any:
    async with client_of(app) as client, opened(client, data("bye"), path) as talk:
        yield await talk.rest()


async def test_hooks_come_from_the_applications_overrides() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        calls.append(packet.payload)
        await echo(session, packet)

    calls: list[Any] = []
    app = FastAPI()
    app.include_router(packets_router())
    app.dependency_overrides[on_connect] = lambda: lambda session: calls.append("connect")
    app.dependency_overrides[on_packet] = lambda: read
    app.dependency_overrides[on_disconnect] = lambda: lambda session: calls.append("disconnect")
    async with talking(app) as packets:
        assert [packet["packet_type"] for packet in packets] == ["RESULT"]
    assert calls == ["connect", "bye", "disconnect"]


async def test_without_hooks_packets_are_taken_and_dropped() -> None:
    app = FastAPI()
    app.include_router(packets_router())
    async with client_of(app) as client, opened(client, data(0)) as talk:
        assert (await talk.say(data(1))).status_code == 202
        assert (await talk.end()).json()["state"] == "cancelled"


async def test_an_override_replaces_the_routers_own_hook_and_its_dependencies() -> None:
    def unavailable() -> None:
        raise AssertionError("expected not to be called")

    def own(_: Annotated[None, Depends(unavailable)]) -> Any:
        raise AssertionError("expected not to be called")

    app = FastAPI()
    app.include_router(packets_router(on_packet=own))
    app.dependency_overrides[on_packet] = lambda: echo
    async with talking(app) as packets:
        assert [packet["packet_type"] for packet in packets] == ["RESULT"]


_calls: list[str] = []


def _database() -> Iterator[list[str]]:
    _calls.append("open")
    yield _calls
    _calls.append("close")


async def test_a_hooks_dependencies_stay_open_until_the_session_has_ended() -> None:
    def hook(calls: Annotated[list[str], Depends(_database)]) -> Any:
        async def read(session: ClientSession, packet: SocketPacket) -> None:
            calls.append("read")

        return read

    calls = _calls
    calls.clear()
    recorded = Recorded(grace=0.05)
    app = FastAPI()
    app.include_router(
        packets_router(on_packet=hook, on_disconnect=lambda: recorded.disconnect, engine=recorded.engine, grace=0.05)
    )
    async with client_of(app) as client:
        async with opened(client, data(0)):
            pass
        await recorded.until("disconnect")
    assert calls == ["open", "read", "close"]


async def test_hooks_are_objects_and_partial_functions_too() -> None:
    class Reading:
        async def __call__(self, session: ClientSession, packet: SocketPacket) -> None:
            await echo(session, packet)

    app = FastAPI()
    app.include_router(packets_router(on_packet=lambda: Reading(), on_connect=lambda: None))
    async with talking(app) as packets:
        assert [packet["packet_type"] for packet in packets] == ["RESULT"]


async def test_a_dependency_may_have_a_parameter_that_hooks_have_too() -> None:
    def hook(session: Any = Depends(lambda: "a database session")) -> Any:
        return echo

    app = FastAPI()
    app.include_router(packets_router(on_packet=hook))
    async with talking(app) as packets:
        assert [packet["packet_type"] for packet in packets] == ["RESULT"]


async def test_such_a_parameter_may_have_the_dependency_in_its_annotation() -> None:
    app = FastAPI()
    app.include_router(packets_router(on_packet=_hook_with_a_session))
    async with talking(app) as packets:
        assert [packet["packet_type"] for packet in packets] == ["RESULT"]


def _hook_with_a_session(session: Annotated[str, Depends(lambda: "a database session")]) -> Any:
    return echo


async def test_a_hook_that_yields() -> None:
    async def hook(session: ClientSession, packet: SocketPacket) -> Any:
        yield packet  # pragma: no cover

    app = FastAPI()
    app.include_router(packets_router(on_packet=lambda: hook))
    async with client_of(app) as client:
        assert (await client.post("/stream", json=data(0))).status_code == 500


def test_a_hook_in_the_place_of_its_dependency() -> None:
    with pytest.raises(TypeError, match="expected on_packet to be a dependency that returns the hook"):
        packets_router(on_packet=echo)


async def _greet(talk: ClientSession) -> None:
    """Begin with another name for the session."""


def _count(received: SocketPacket[int]) -> None:
    """Take a packet by another name."""


def _look(talk: ClientSession, other: Unknown) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Have an annotation that nobody can read."""


@pytest.mark.parametrize("hook", [_greet, _count, _look])
def test_a_hook_with_other_names_in_the_place_of_its_dependency(hook: Any) -> None:
    with pytest.raises(TypeError, match="expected on_connect to be a dependency that returns the hook"):
        packets_router(on_connect=hook)


async def test_a_dependency_that_gives_no_hook() -> None:
    app = FastAPI()
    app.include_router(packets_router(on_packet=lambda: 1))
    async with client_of(app) as client:
        assert (await client.post("/stream", json=data(0))).status_code == 500


# Types of packets


class Order(BaseModel):
    item: str


async def test_typed_payloads_and_types_of_the_application() -> None:
    async def read(session: ClientSession, packet: SocketPacket[Order]) -> None:
        orders.append(packet.payload)
        await session.send(SocketPacket(packet_type="PROGRESS", payload=1))
        await session.send(SocketPacket(packet_type="RESULT", payload=Order(item="bolt")))

    orders: list[Order] = []
    recorded = Recorded(read, packet=SocketPacket[Order], packet_types=["PROGRESS"])
    async with client_of(recorded) as client:
        refused = await client.post("/stream", json=data({"item": 1}))
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_packet")
        assert "payload.item" in refused.json()["detail"]
        assert (await client.post("/stream", json={"packet_type": "DATA"})).status_code == 422
        async with opened(client, {"packet_type": "PROGRESS", "payload": {"item": "nut"}}) as talk:
            progress, last = await talk.rest()
        assert progress["packet_type"] == "PROGRESS"
        assert last["payload"] == {"item": "bolt"}
    assert orders == [Order(item="nut")]


async def test_bytes_both_ways() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        payloads.append(packet.payload)
        await session.send(packet.reply(packet.payload, PacketType.RESULT))

    payloads: list[Any] = []
    recorded = Recorded(read)
    first = from_json(SocketPacket(packet_type="DATA", payload=b"\xff\0").encode())
    async with client_of(recorded) as client, opened(client, first) as talk:
        last = await talk.packet()
        assert SocketPacket.decode(to_json(last)).payload == b"\xff\0"
    assert payloads == [b"\xff\0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no spaces", r"^expected a packet type of up to 64 letters, .* but got 'no spaces'$"),
        ("1x", r"^expected a packet type .* that begins with a letter, but got '1x'$"),
        ("FAREWELL", "^expected packet types of your own, but 'FAREWELL' is the name of a notice$"),
    ],
)
def test_types_that_an_application_cannot_have(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        packets_router(packet_types=[name])
    assert refused.type is ValueError


async def test_a_path_with_a_parameter_and_a_prefix() -> None:
    recorded = Recorded(path="/{room}/packets", prefix="/rooms")
    async with client_of(recorded) as client, opened(client, data("bye"), "/rooms/7/packets") as talk:
        assert talk.address.startswith("/rooms/7/packets/")
        assert [packet["payload"] for packet in await talk.rest()] == ["bye"]


async def test_the_openapi_document_names_the_exchange() -> None:
    recorded = Recorded(nothing)
    paths = recorded.app.openapi()["paths"]
    assert set(paths) == {"/stream", "/stream/{session_id}"}
    assert set(paths["/stream/{session_id}"]) == {"get", "post", "delete"}
    assert {"202", "404", "410", "413", "422", "429"} <= set(paths["/stream/{session_id}"]["post"]["responses"])
    assert "application/x-ndjson" in paths["/stream"]["post"]["responses"]["200"]["content"]


# WebSockets


@asynccontextmanager
async def socket(recorded: Recorded, path: str = "/stream") -> Any:
    async with (
        client_of(recorded) as client,
        asyncio.timeout(BOUND),
        websockets.connect(f"{client.base_url}".replace("http", "ws", 1) + path) as connection,
    ):
        yield connection


async def test_a_session_over_a_websocket() -> None:
    recorded = Recorded()
    async with socket(recorded) as connection:
        await connection.send(to_json(data(0)).decode())
        first = from_json(await connection.recv())
        assert first["payload"] == 0
        for number in range(1, 200):
            await connection.send(to_json(data(number)).decode())
        await connection.send(to_json({"packet_type": "DTAA", "id": "bad"}).decode())
        await connection.send(to_json(data("bye")).decode())
        packets = [from_json(message) async for message in connection]
        errors = [packet for packet in packets if packet["packet_type"] == "ERROR"]
        assert [error["reply_to"] for error in errors] == ["bad"]
        assert [packet["payload"] for packet in packets if packet not in errors] == [*range(1, 200), "bye"]
        assert connection.close_code == 1000
    assert recorded.calls[:3] == ["connect", 0, 1]


async def test_a_session_goes_on_over_a_websocket() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client:
        async with opened(client, data(0)) as talk:
            first = await talk.packet()
        url = f"{client.base_url}".replace("http", "ws", 1)
        at = f"{url}{talk.address}?after={first['cursor']}&takeover=true"
        async with asyncio.timeout(BOUND), websockets.connect(at) as connection:
            await connection.send(to_json(data("bye")).decode())
            assert [from_json(message)["payload"] async for message in connection] == ["bye"]

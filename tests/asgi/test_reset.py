from __future__ import annotations

import pytest
from pydantic_core import from_json

from tailrace import Engine, OpenAIChunks, Retention, StreamResponse, StreamSettings
from tailrace.log.base import Log
from tailrace.modes import DEFAULT_WIRES
from tests.asgi.apps import Served, of, small_engine
from tests.raw import fetch, frames, values
from tests.serving import serving

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}


async def shared(engine: Engine) -> Log:
    log = engine.log("news", retention=Retention(count=2))
    await log.extend(range(10))
    await log.close()
    return log


CASES = [
    ("news.other.1", "epoch_changed"),
    ("other.{epoch}.1", "epoch_changed"),
    ("{log}.11", "ahead"),
    ("{log}.3", "trimmed"),
]


@pytest.mark.parametrize(("cursor", "reason"), CASES)
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/x-ndjson"])
async def test_a_reset_is_said_in_band_with_a_cursor_to_go_on_from(media_type: str, cursor: str, reason: str) -> None:
    engine = small_engine()
    log = await shared(engine)
    cursor = cursor.format(log=f"{log.stream}.{log.epoch}", epoch=log.epoch)
    headers = {"Accept": media_type}
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, f"/x?after={cursor}", headers)
        (reset,) = frames(body, WIRES[media_type])
        assert (answer.status, reset.event, reset.data) == (200, "reset", {"reason": reason})
        assert answer.whole
        assert answer.headers["content-type"].startswith(media_type)
        assert reset.id == answer.headers["tailrace-cursor"] == str(log.cursor(8))
        _, body = await fetch(url, f"/x?after={reset.id}", headers)
        assert values(body, WIRES[media_type]) == [8, 9, "done"]


@pytest.mark.parametrize(("cursor", "reason"), CASES)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
async def test_a_wire_without_room_for_a_reset_answers_410(media_type: str, cursor: str, reason: str) -> None:
    engine = small_engine()
    log = await shared(engine)
    cursor = cursor.format(log=f"{log.stream}.{log.epoch}", epoch=log.epoch)
    headers = {"Accept": media_type}
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, f"/x?after={cursor}", headers)
        frame = from_json(body)
        assert answer.status == 410
        assert (frame["code"], frame["reason"], frame["cursor"]) == ("reset", reason, str(log.cursor(8)))
        answer, body = await fetch(url, f"/x?after={frame['cursor']}", headers)
        assert (answer.status, body) == (
            200,
            {"application/json": b'{"data":[8,9]}', "text/plain": b"8\n9\n"}[media_type],
        )


async def test_a_stream_that_nobody_knows_is_reset_to_its_end_which_stops_a_browser() -> None:
    async with serving(Served(x=of(1))) as url:
        _, body = await fetch(url, "/x?after=s.e.5&stream=true")
        (reset,) = frames(body)
        assert (reset.event, reset.data, reset.id) == ("reset", {"reason": "epoch_changed"}, "s.e.5.end")
        answer, body = await fetch(url, f"/x?after={reset.id}&stream=true")
        assert (answer.status, body) == (204, b"")


async def test_a_wire_may_spell_a_reset_in_its_own_way() -> None:
    settings = StreamSettings(wires=[OpenAIChunks("m")])
    async with serving(Served(x=of(1, settings=settings))) as url:
        answer, body = await fetch(url, "/x?after=s.e.5")
    assert answer.status == 200
    assert b'"stream_reset"' in body

"""The HTML of stored messages: what is kept, and how much is rendered at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tailrace import Engine, Outcome
from tailrace.chat import rendering
from tailrace.chat.rendering import PATH, Cache, Rendering
from tests.log.redis.redis_server import redis_server


def test_a_cache_keeps_what_was_used_last() -> None:
    cache = Cache(10)
    for text in "abc":
        cache.put(text, text * 3)
    assert cache.get("a") == "aaa"
    cache.put("d", "ü")
    cache.put("e", "eeeee")
    assert [cache.get(text) for text in "abcde"] == ["aaa", None, None, "ü", "eeeee"]
    cache.put("e", "ee")
    assert cache.room == 3
    cache.put("f", "f" * 11)
    assert cache.get("f") is None
    assert cache.room == 10


async def test_the_newest_texts_are_rendered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "PAGE", 5)
    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        assert await made.html_of(["aaaa", "b", "cc"]) == [None, '<p dir="auto">b</p>\n', '<p dir="auto">cc</p>\n']
    await engine.aclose()


async def test_a_text_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def render(text: str) -> str:
        texts.append(text)
        return text.upper()

    monkeypatch.setattr("tailrace.chat.markdown.render", render)
    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        assert await made.html_of(["a", "b", "a"]) == ["A", "B", "A"]
        assert await made.html_of(["a", "b"]) == ["A", "B"]
    await engine.aclose()
    assert sorted(texts) == ["a", "b"]


async def test_html_whose_process_died_is_made_again() -> None:
    engine = Engine()
    made = Rendering(engine)
    lost = Outcome("error", "producer_lost", "the process died")
    async with made.running():
        reply = await engine.new_stream("/chat/stream")
        await reply.append({"type": "chunk", "text": "*a*", "is_final": True})
        stream_id = reply.name.rpartition("/")[2]
        broken = await engine.new_stream(PATH, stream_id=stream_id)
        await broken.close(lost)
        log = await made.follow(reply)
        assert log is not broken
        await reply.close(lost)
        await log.wait_end()
        assert log.outcome is not None
        assert (log.outcome.code, log.top) == ("producer_lost", 1)
        assert await made.follow(reply) is log
        await engine.aclose()


async def test_a_log_without_a_producer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        reply = await engine.new_stream("/chat/stream")
        monkeypatch.setattr(engine, "produce", fail)
        with pytest.raises(asyncio.CancelledError):
            await made.follow(reply)
        assert await engine.find(f"{PATH}/{reply.name.rpartition('/')[2]}") is None
        await engine.aclose()


async def test_a_stop_does_not_cost_the_rest_of_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the server, all producers are stopped together, so the reply ends after its HTML was stopped."""
    begun, proceed = threading.Event(), threading.Event()

    def wait(self: object, text: str) -> dict[int, str]:
        begun.set()
        assert proceed.wait(30)
        return {1: text}

    monkeypatch.setattr("tailrace.chat.markdown.Renderer.feed", wait)
    engine = Engine()
    made = Rendering(engine)
    async with made.running():
        reply = await engine.new_stream("/chat/stream")
        await reply.append({"type": "chunk", "text": "a", "is_final": False})
        log = await made.follow(reply)
        producer = engine.producer(log)
        assert producer is not None
        await asyncio.to_thread(begun.wait, 10)
        producer.stop()
        await asyncio.sleep(0)
        proceed.set()
        await reply.append({"type": "chunk", "text": "b", "is_final": False})
        await reply.close(Outcome("cancelled", "shutdown", "the server shut down"))
        await producer.wait()
        with log.tail() as tail:
            blocks = [entry.data["blocks"] async for entries in tail for entry in entries]
        assert blocks == [[{"number": 1, "html": "a"}], [{"number": 1, "html": "b"}]]
        assert log.outcome is not None
        assert (log.outcome.state, log.outcome.data["code"]) == ("cancelled", "interrupted")
        await engine.aclose()


async def test_processes_share_the_html_of_a_reply() -> None:
    with redis_server() as server:
        engines = [Engine(server.url), Engine(server.url)]
        rendering_each = [Rendering(engine) for engine in engines]
        async with rendering_each[0].running(), rendering_each[1].running():
            mine = await engines[0].new_stream("/chat/stream")
            await mine.append({"type": "chunk", "text": "*a*", "is_final": True})
            theirs = await engines[1].find(mine.name)
            assert theirs is not None
            logs = await asyncio.gather(rendering_each[0].follow(mine), rendering_each[1].follow(theirs))
            assert logs[0].epoch == logs[1].epoch
            assert sum(len(engine.producers) for engine in engines) == 1
            await mine.close(Outcome("done", data={"type": "complete"}))
            texts = [[entry.json async for entries in log.tail() for entry in entries] for log in logs]
            assert texts[0] == texts[1]
            assert b"<em>a</em>" in texts[0][0]
            for engine in engines:
                await engine.aclose()

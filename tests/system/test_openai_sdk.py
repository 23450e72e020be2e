"""The official OpenAI client against a route that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from tests.system.servers import PATIENCE, UVICORN, Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    # Pings between any two chunks: some clients stumble over them.
    with running(UVICORN, HEARTBEAT="0.2") as instance:
        yield instance


@pytest_asyncio.fixture
async def client(server: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=30) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, prompt: str) -> openai.AsyncStream[ChatCompletionChunk]:
    return await client.chat.completions.create(
        model="mill-1", messages=[{"role": "user", "content": prompt}], stream=True
    )


async def test_the_answer_arrives_and_says_why_it_ended(client: openai.AsyncOpenAI) -> None:
    async with await ask(client, "how is the mill?") as stream:
        chunks = [chunk async for chunk in stream]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == "The mill turns."
    assert [choice.finish_reason for choice in choices] == [None, None, None, None, "stop"]
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", "mill-1")}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_pings_between_chunks_go_unnoticed(client: openai.AsyncOpenAI, server: Running) -> None:
    # The same bytes, read by somebody who sees the pings, say when there were some.
    request = {"messages": [{"content": "hold pinged"}]}
    async with (
        server.client() as witness,
        witness.stream("POST", "/v1/chat/completions", json=request) as response,
        await ask(client, "hold pinged") as stream,
    ):
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        async with asyncio.timeout(PATIENCE):
            pings = 0
            async for chunk in response.aiter_bytes():
                pings += chunk.count(b": ping")
                if pings == 3:
                    break
        await witness.post("/lives/pinged/release", params={"count": 2})
        words = [chunk.choices[0].delta.content async for chunk in stream]
    assert words == ["The ", "mill ", "turns.", None]


async def test_an_error_in_the_middle_raises(client: openai.AsyncOpenAI) -> None:
    async with await ask(client, "break") as stream:
        words = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        assert words == ["", "The "]
        with pytest.raises(openai.APIError) as error:
            await anext(stream)
    assert error.value.message == "the wheel broke"
    assert error.value.code == "wheel"


async def test_an_error_before_the_first_chunk_is_an_error_of_its_status(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await ask(client, "refuse")
    assert error.value.body == {"detail": "the mill stands still", "code": "mill_stopped"}


async def test_leaving_early_ends_the_model(client: openai.AsyncOpenAI, server: Running) -> None:
    async with server.client() as control:
        async with await ask(client, "hold left") as stream:
            await anext(stream)
        life = await control.get("/lives/left", params={"closed": 1})
        assert life.json()["cancelled"] == 1

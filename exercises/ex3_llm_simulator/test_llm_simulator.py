"""Check exercise 3."""

import itertools
from typing import Any

import openai
import pytest


@pytest.fixture
def sdk(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10)


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_the_answer_is_the_question_in_upper_case(sdk: openai.OpenAI) -> None:
    chunks = list(sdk.chat.completions.create(model="loud-1", messages=ask("good morning to you"), stream=True))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert texts == ["GOOD", " MORNING", " TO", " YOU"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["loud-1", "loud-2"])
def test_chunks_name_the_model(sdk: openai.OpenAI, model: str) -> None:
    chunks = list(sdk.chat.completions.create(model=model, messages=ask("hello"), stream=True))
    assert {chunk.model for chunk in chunks} == {model}


def test_an_unknown_model_is_refused(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        sdk.chat.completions.create(model="quiet-1", messages=ask("hello"), stream=True)
    assert refusal.value.status_code == 404


def test_tokens_arrive_one_by_one(sdk: openai.OpenAI) -> None:
    chunks = sdk.chat.completions.create(model="loud-1", messages=ask("word " * 100_000), stream=True)
    with chunks:
        first = [chunk.choices[0].delta.content for chunk in itertools.islice(chunks, 1, 3)]
    assert first == ["WORD", " WORD"]

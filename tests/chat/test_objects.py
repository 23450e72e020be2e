"""What is spelled without its model has to be what the model says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tailrace.chat.objects import REASONING, ChatRequest, chunk, encode_object, reasoning
from tailrace.client import Chunk, Reasoning


def test_a_chunk_is_spelled_as_its_model_describes() -> None:
    item = chunk("one “word”\n", 3, is_final=False)
    model = Chunk(text="one “word”\n", chunk_number=3, is_final=False, timestamp=item["timestamp"])
    assert (
        encode_object(item) == encode_object(model) == (None, model.model_dump_json(exclude={"id", "blocks"}).encode())
    )


def test_reasoning_is_spelled_as_its_model_describes() -> None:
    item = reasoning("hm")
    model = Reasoning(text="hm", timestamp=item["timestamp"])
    assert encode_object(item) == encode_object(model) == (REASONING, model.model_dump_json(exclude={"id"}).encode())


def test_a_chunk_has_the_time_at_which_it_was_made() -> None:
    assert chunk("", 1, is_final=True)["timestamp"] <= chunk("", 2, is_final=True)["timestamp"]


@pytest.mark.parametrize(
    ("fields", "place", "said"),
    [
        ({"message": ""}, "message", "expected a message that is not blank"),
        ({"message": " \n\u2003"}, "message", "expected a message that is not blank"),
        ({"message": "a\x00b"}, "message", "expected a message without NUL, but got one"),
        ({"message": "\x00"}, "message", "expected a message without NUL, but got one"),
        ({"message": "a\ud800"}, "message", "expected a message of whole characters, but got half of one"),
        ({"message": "Hello", "sessionId": "s"}, "sessionId", "Extra inputs are not permitted"),
    ],
)
def test_a_request_that_cannot_be_meant_is_told_why(fields: dict[str, str], place: str, said: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate(fields)
    [error] = refusal.value.errors()
    assert (error["loc"], error["msg"]) == ((place,), said)


def test_a_message_is_kept_as_it_is() -> None:
    assert ChatRequest.model_validate({"message": " a\n"}).message == " a\n"

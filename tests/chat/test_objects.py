"""What is spelled without its model has to be what the model says."""

from __future__ import annotations

from tailrace.chat.objects import Chunk, chunk, encode_object


def test_a_chunk_is_spelled_as_its_model_describes() -> None:
    item = chunk("one “word”\n", 3, is_final=False)
    model = Chunk(text="one “word”\n", chunk_number=3, is_final=False, timestamp=item["timestamp"])
    assert encode_object(item) == encode_object(model) == (None, model.model_dump_json().encode())


def test_a_chunk_has_the_time_at_which_it_was_made() -> None:
    assert chunk("", 1, is_final=True)["timestamp"] <= chunk("", 2, is_final=True)["timestamp"]

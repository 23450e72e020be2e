"""The model that is meant is opened; test_remote.py opens the real ones."""

from __future__ import annotations

import pytest

from tailrace.chat.models.base import Message
from tailrace.chat.models.choose import UnknownModel, open_model
from tailrace.chat.models.demo import compose, cut


async def test_the_demo_model_is_opened_with_its_words() -> None:
    said = [Message("user", "Hello")]
    async with open_model(None, {}, demo_words=2, demo_pace=0, timeout=1) as model:
        assert (model.name, model.framework) == ("demo", "built in")
        *pieces, _usage = [piece async for piece in model.reply(said)]
    assert pieces == list(cut(compose(said), 2))


async def test_a_model_that_is_none_is_not_opened() -> None:
    with pytest.raises(UnknownModel, match="but got 'llama3'"):
        async with open_model("llama3", {}, demo_words=2, demo_pace=0, timeout=1):
            raise AssertionError("the block must not be entered")

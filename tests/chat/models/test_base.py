"""What a model of one's own needs: one method."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from tailrace.chat import Message, Model, ModelError
from tests.chat.api.talking import body, chatting, lines, text


class Echo(Model):
    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str, None]:
        yield conversation[-1].text


class Louder(Echo):
    pass


class Named(Echo):
    name = "echo-2"


class Renamed(Named):
    pass


class Computed(Echo):
    @property
    def name(self) -> str:  # type: ignore[override]
        return "computed"


class Late(Echo):
    def __init__(self) -> None:
        self.name = "late"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Echo, "Echo"),
        (Louder, "Louder"),
        (Named, "echo-2"),
        (Renamed, "echo-2"),
        (Computed, "computed"),
        (Late, "late"),
    ],
)
def test_a_model_has_a_name(kind: type[Model], name: str) -> None:
    assert kind().name == name


def test_a_model_without_a_reply_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract method"):
        Model()  # type: ignore[abstract]


def test_a_failure_has_a_code() -> None:
    assert ModelError("no").code == "model_error"
    assert ModelError("no", code="model_refused").code == "model_refused"


async def test_a_class_with_one_method_is_a_model(tmp_path: Path) -> None:
    async with chatting(tmp_path, Echo()) as chat:
        answer = await chat.http.post("/chat/stream", json=body("Hello", None))
        objects = lines(answer.content)
        assert (await chat.get("/stats"))["model"] == "Echo"
    assert (objects[0]["model"], text(objects)) == ("Echo", "Hello")

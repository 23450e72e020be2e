"""The contract of a model: an async generator that yields a reply piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ... import StreamError


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's reasoning before it answers. It is never part of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a reply, as the model counts them."""

    input_tokens: int
    output_tokens: int


Piece: TypeAlias = str | Reasoning | Usage
"""An item that a model yields: text, reasoning if it has any, or its usage at the end."""


class ModelError(StreamError):
    """A failure of the model. Clients see `message` and `code`.

    The server's own models use the codes `model_unavailable`, `model_rate_limited`, `model_unauthorized`,
    `model_not_found`, `model_refused`, `model_truncated`, `context_too_long` and `model_error`.
    """

    def __init__(self, message: str, *, code: str = "model_error") -> None:
        super().__init__(message, code=code)


class Model(ABC):
    """Answers conversations. Subclass it and write `reply`.

    `name` is the model's name for users. By default, it is the name of the class.
    """

    name: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Do not replace a name that a base class defines itself.
        if all(vars(base).get("name", base.__name__) == base.__name__ for base in cls.__mro__):
            cls.name = cls.__name__

    @abstractmethod
    def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        """Yield the reply to the last message of the conversation.

        Raise ModelError if the reply fails or is incomplete. To stop the model, the server cancels the generator at an
        `await` and closes it, so end the model's work in a `finally` block.
        """
        ...

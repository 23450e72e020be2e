"""What every model is: an async generator that writes a reply piece by piece."""

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
    """A piece of what the model thinks before it answers. It is never part of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply cost, in tokens as the model counts them."""

    input_tokens: int
    output_tokens: int


Piece: TypeAlias = str | Reasoning | Usage
"""What a model yields: text, and if it has them, its reasoning and, at the end, its usage."""


class ModelError(StreamError):
    """The model failed. Clients see `message` and `code`.

    The server's own models use the codes `model_unavailable`, `model_rate_limited`, `model_unauthorized`,
    `model_not_found`, `model_refused`, `model_truncated`, `context_too_long` and `model_error`.
    """

    def __init__(self, message: str, *, code: str = "model_error") -> None:
        super().__init__(message, code=code)


class Model(ABC):
    """What answers a conversation. Subclass it and write `reply`.

    `name` is what users see as the model. By default it is the name of the class.
    """

    name: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A name that a base class was given, and not by this, is inherited.
        if all(vars(base).get("name", base.__name__) == base.__name__ for base in cls.__mro__):
            cls.name = cls.__name__

    @abstractmethod
    def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        """Yield the reply to the last message of the conversation.

        Raise ModelError if the reply fails or is cut short. To stop the model, the server cancels the generator at an
        `await` and closes it, so end the model's work in a `finally` block.
        """
        ...

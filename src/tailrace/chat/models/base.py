"""What every model is: one async generator of pieces of text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ... import StreamError


@dataclass(frozen=True, slots=True)
class Message:
    """One side of one turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply cost, in tokens as the model counts them."""

    input_tokens: int
    output_tokens: int


class ModelError(StreamError):
    """The model failed; `message` and `code` are for the user.

    Codes: `model_unavailable`, `model_rate_limited`, `model_unauthorized`, `model_not_found`, `model_refused`,
    `model_truncated`, `context_too_long`, `model_error`.
    """


class Model(Protocol):
    """What answers a conversation.

    - `name`: what users see, `gemini-…` or `demo`.
    - `framework`: what is between the server and the model, for the banner and the statistics.
    """

    @property
    def name(self) -> str: ...
    @property
    def framework(self) -> str: ...

    def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str | Usage, None]:
        """The reply to the last message, in pieces that are never empty, and at the end its usage, if it is known.

        ModelError when the model fails, is cut short or refuses. Closing the generator closes the connection to the
        model, so that it stops.
        """
        ...

"""Opens the model that is meant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from .base import Model
from .demo import DemoModel
from .spec import DEMO, MissingExtra, MissingKey, ModelSpec, UnknownModel, UnusableModel, resolve_model

__all__ = ["MissingExtra", "MissingKey", "ModelSpec", "UnknownModel", "UnusableModel", "open_model", "resolve_model"]


@asynccontextmanager
async def open_model(
    spec: str | None,
    environment: Mapping[str, str],
    *,
    demo_words: float,
    demo_pace: float,
    timeout: float,  # noqa: ASYNC109
) -> AsyncIterator[Model]:
    """The model of `resolve_model`, with its connections, which are closed with the block.

    `demo_words` and `demo_pace` are for the demo model. A real one fails after `timeout` seconds without a sign of
    life, at any time of a reply. UnusableModel as there.
    """
    resolved = resolve_model(spec, environment)
    if resolved.provider == DEMO:
        yield DemoModel(demo_words, demo_pace)
        return
    from .remote import open_remote  # loads the vendor's library, which takes a second or more

    async with open_remote(resolved, timeout=timeout) as model:
        yield model

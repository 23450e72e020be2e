"""Open a model by its name: the demo model, or one of a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from .base import Model
from .demo import DemoModel
from .spec import DEMO, resolve_model


@asynccontextmanager
async def open_model(
    spec: str | None,
    environment: Mapping[str, str],
    *,
    demo_words: float,
    demo_pace: float,
    timeout: float,  # noqa: ASYNC109
) -> AsyncIterator[Model]:
    """Open the model that `resolve_model` finds, and close its connections at the end of the block.

    A remote model fails after `timeout` seconds of silence during a reply. `demo_words` and `demo_pace` are for the
    demo model. Raise UnusableModel.
    """
    resolved = resolve_model(spec, environment)
    if resolved.provider == DEMO:
        yield DemoModel(demo_words, demo_pace)
        return
    from .remote import open_remote  # imports a vendor's library, which takes a second or more

    async with open_remote(resolved, timeout=timeout) as model:
        yield model

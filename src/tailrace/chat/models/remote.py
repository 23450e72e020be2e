"""Real models, asked through pydantic-ai."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .base import Model
from .spec import ModelSpec


@asynccontextmanager
async def open_remote(spec: ModelSpec, *, timeout: float) -> AsyncIterator[Model]:  # noqa: ASYNC109
    raise NotImplementedError
    yield

"""What the generators of `tests.system.app` have lived through, each known by the name that its test gave it."""

from __future__ import annotations

import httpx


async def release(client: httpx.AsyncClient, name: str, count: int = 1) -> None:
    """Let a held generator yield so many more items."""
    (await client.post(f"/lives/{name}/release", params={"count": count})).raise_for_status()


async def life(client: httpx.AsyncClient, name: str, **least: int) -> dict[str, int]:
    """How often each thing happened, once each of `least` has happened so often."""
    response = await client.get(f"/lives/{name}", params=least)
    response.raise_for_status()
    found: dict[str, int] = response.json()
    return found

"""What asks each provider: pydantic-ai's models, around the vendors' own libraries.

Those are imported when a model of theirs is opened, because each takes a second or so. None of them may try again by
itself: a turn is asked once. A second request may be billed again, its answer would not be the continuation of the
first, and whoever asked can see what went wrong and say it again.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx2
from pydantic_ai.models import Model as VendorModel

from .spec import ModelSpec

# Servers of one's own want none, but the library insists on something to send.
NO_KEY = "none"


def _google(spec: ModelSpec, client: httpx2.AsyncClient) -> VendorModel:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    # Without `retry_options` it does not try again.
    return GoogleModel(spec.name, provider=GoogleProvider(api_key=spec.key, base_url=spec.base_url, http_client=client))


def _openai(spec: ModelSpec, client: httpx2.AsyncClient) -> VendorModel:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.ollama import OllamaProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    vendor = AsyncOpenAI(
        api_key=spec.key or NO_KEY,
        base_url=spec.base_url,
        http_client=client,
        max_retries=0,
        timeout=client.timeout,
    )
    provider = OllamaProvider if spec.provider == "ollama" else OpenAIProvider
    return OpenAIChatModel(
        spec.name,
        provider=provider(openai_client=vendor),
        # Otherwise a stream that was cut off counts as finished.
        profile=OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True),
    )


def _anthropic(spec: ModelSpec, client: httpx2.AsyncClient) -> VendorModel:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    vendor = AsyncAnthropic(
        api_key=spec.key, base_url=spec.base_url, http_client=client, max_retries=0, timeout=client.timeout
    )
    return AnthropicModel(spec.name, provider=AnthropicProvider(anthropic_client=vendor))


VENDORS: dict[str, Callable[[ModelSpec, httpx2.AsyncClient], VendorModel]] = {
    "google": _google,
    "openai": _openai,
    "ollama": _openai,
    "anthropic": _anthropic,
}

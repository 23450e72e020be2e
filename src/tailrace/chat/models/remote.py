"""Models of providers, through pydantic-ai."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import groupby

import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    UserPromptPart,
)
from pydantic_ai.models import Model as VendorModel

from .base import Message, Model, ModelError, Piece, Reasoning, Usage
from .failures import Failures
from .spec import ModelSpec
from .thinking import Thinking
from .upstream import TIMEOUT, UpstreamFault, listener, open_client, proxy_for, tls_for


@asynccontextmanager
async def open_remote(spec: ModelSpec, *, timeout: float) -> AsyncIterator[RemoteModel]:  # noqa: ASYNC109
    """Open the model of `spec`, and close its connections at the end of the block. See `open_model` for `timeout`."""
    tls, proxy = tls_for(spec.base_url), proxy_for(spec.base_url)
    async with open_client(spec.base_url, tls, proxy) as client:
        yield RemoteModel(VENDORS[spec.provider](spec, client, tls), spec, Failures(spec, timeout, proxy), timeout)


class RemoteModel(Model):
    """A model of a provider. It fails if its server sends nothing for `silence` seconds."""

    def __init__(self, vendor: VendorModel, spec: ModelSpec, failures: Failures, silence: float) -> None:
        self._vendor = vendor
        self._failures = failures
        self._silence = silence
        self._tagged = spec.provider in TAGGED
        self.name = spec.name

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        exchange = _Exchange(self._vendor, self._failures, self._silence, Thinking(tagged=self._tagged))
        try:
            await exchange.open(translate(conversation))
            while pieces := await exchange.take():
                for piece in pieces:
                    yield piece
        finally:
            await exchange.close()


class _Exchange:
    """One request to a model, and its response as it arrives. All failures become ModelErrors."""

    def __init__(self, vendor: VendorModel, failures: Failures, silence: float, thinking: Thinking) -> None:
        self._vendor = vendor
        self._failures = failures
        self._silence = silence
        self._thinking = thinking
        self._stack = AsyncExitStack()
        self._responses: list[httpx2.Response] = []
        self._timer: asyncio.Timeout | None = None
        self._fault: UpstreamFault | None = None
        self._answered = self._thought = self._ended = False
        self._failure: ModelError | None = None

    async def open(self, messages: list[ModelMessage]) -> None:
        async with self._step():
            stream = model_request_stream(self._vendor, messages)
            self._response = await self._stack.enter_async_context(stream)

    async def take(self) -> list[Piece]:
        """Return the next pieces of the reply, or none after the last one.

        If the reply has failed, raise ModelError, but only after all pieces that arrived.
        """
        while not self._ended:
            if pieces := await self._next():
                return pieces
        if self._failure is not None:
            raise self._failure
        return []

    async def close(self) -> None:
        """Close the connection unless the response was read to its end, because nobody needs the rest."""
        # Close the responses first, because Google's library would read them to their end before it closes them.
        for close in (*(response.aclose for response in self._responses), self._stack.aclose):
            with suppress(Exception):  # libraries raise errors of all kinds when their connection is closed
                await close()

    # Calls from the transport

    def opened(self, response: httpx2.Response) -> None:
        self._responses.append(response)

    def heard(self) -> None:
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time() + self._silence)

    def give_up(self, fault: UpstreamFault) -> None:
        self._fault = fault

    # Reading

    async def _next(self) -> list[Piece]:
        try:
            async with self._step():
                event = await anext(aiter(self._response), None)
        except ModelError as failure:
            return self._end(failure)
        return self._end(None) if event is None else self._read(event)

    def _read(self, event: ModelResponseStreamEvent) -> list[Piece]:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                return self._note(self._thinking.feed(text))
            case (
                PartStartEvent(part=ThinkingPart(content=thought))
                | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=thought))
            ) if thought:
                return self._note([Reasoning(thought)])
        return []

    def _end(self, failure: ModelError | None) -> list[Piece]:
        """Return the last pieces: the text that was held back and, if the reply is complete, the usage."""
        pieces = self._note(self._thinking.close())
        self._ended = True
        self._failure = failure or self._failures.of_ending(
            self._response.finish_reason, answered=self._answered, thought=self._thought
        )
        usage = self._response.usage
        if self._failure is None and usage.output_tokens:
            pieces.append(Usage(usage.input_tokens, usage.output_tokens))
        return pieces

    def _note(self, parts: Iterable[str | Reasoning]) -> list[Piece]:
        pieces: list[Piece] = list(parts)
        for piece in pieces:
            if isinstance(piece, Reasoning):
                self._thought = True
            else:
                self._answered = True
        return pieces

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """Let the library take a step, within the bound of silence. Turn any error into a ModelError."""
        token = listener.set(self)
        try:
            async with asyncio.timeout(self._silence) as self._timer:
                yield
        except Exception as error:  # a model's library may raise anything
            response = self._responses[-1] if self._responses else None
            began = self._answered or self._thought
            raise self._failures.of_exception(self._fault or error, response, began=began) from error
        finally:
            self._timer = None
            listener.reset(token)


def translate(conversation: Sequence[Message]) -> list[ModelMessage]:
    """Translate a conversation into pydantic-ai's messages.

    Consecutive messages of one side become one message, because some servers require alternating sides. They occur
    where a turn has no reply or an empty one.
    """
    messages: list[ModelMessage] = []
    said = (message for message in conversation if message.text.strip())
    for role, group in groupby(said, key=lambda message: message.role):
        text = "\n\n".join(message.text for message in group)
        if role == "user":
            messages.append(ModelRequest(parts=[UserPromptPart(text)]))
        else:
            messages.append(ModelResponse(parts=[TextPart(text)]))
    return messages


# Vendors
#
# Each library is imported only when one of its models is opened, because the import takes about a second. The libraries
# must not retry: a second request may cost twice, and its answer would not continue the first one. The user sees the
# failure and can ask again.

NO_KEY = "none"
"""The key for servers that need none, because the library requires one."""

TAGGED = frozenset({"openai", "ollama"})
"""The providers whose servers may write reasoning as `<think>` in the text."""


def _google(spec: ModelSpec, client: httpx2.AsyncClient, tls: ssl.SSLContext) -> VendorModel:
    from google.genai import Client
    from google.genai.types import HttpOptions
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    assert TIMEOUT.read is not None
    options = HttpOptions(
        base_url=spec.base_url,
        timeout=int(TIMEOUT.read * 1000),
        httpx_async_client=client,
        # The library never uses its other clients here, but they would read proxies and certificates on creation.
        client_args={"verify": tls, "trust_env": False},
        async_client_args={"ssl": tls},
    )
    # Without `retry_options`, the library does not retry.
    vendor = Client(vertexai=False, api_key=spec.key, http_options=options)
    return GoogleModel(spec.name, provider=GoogleProvider(client=vendor))


def _openai(spec: ModelSpec, client: httpx2.AsyncClient, tls: ssl.SSLContext) -> VendorModel:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles import ModelProfile
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
    profile: ModelProfile = OpenAIModelProfile(
        # Otherwise a truncated stream counts as complete.
        openai_chat_streaming_requires_finish_reason=True,
        # Thinking handles the tags. pydantic-ai finds a tag anywhere in the text, but only if it is a whole piece.
        thinking_tags=("\0", "\0"),
        ignore_streamed_leading_whitespace=False,
    )
    return OpenAIChatModel(spec.name, provider=provider(openai_client=vendor), profile=profile)


def _anthropic(spec: ModelSpec, client: httpx2.AsyncClient, tls: ssl.SSLContext) -> VendorModel:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    vendor = AsyncAnthropic(
        api_key=spec.key, base_url=spec.base_url, http_client=client, max_retries=0, timeout=client.timeout
    )
    return AnthropicModel(spec.name, provider=AnthropicProvider(anthropic_client=vendor))


VENDORS: dict[str, Callable[[ModelSpec, httpx2.AsyncClient, ssl.SSLContext], VendorModel]] = {
    "google": _google,
    "openai": _openai,
    "ollama": _openai,
    "anthropic": _anthropic,
}

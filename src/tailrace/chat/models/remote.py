"""Real models, asked through pydantic-ai."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
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
    UserPromptPart,
)
from pydantic_ai.models import Model as VendorModel

from .base import Message, Usage
from .failures import Failures
from .spec import ModelSpec
from .vendors import VENDORS

# Generous, because the timer of an exchange decides: it hears what the model says, where a library's hears pings too.
# Google's also passes this on to its servers, as the time that the whole reply may take.
HTTP_TIMEOUT = httpx2.Timeout(1200.0, connect=30.0)
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)

# The exchange on whose behalf requests are sent, in each of its steps.
_sending: ContextVar[_Exchange] = ContextVar("sending")


@asynccontextmanager
async def open_remote(spec: ModelSpec, *, timeout: float) -> AsyncIterator[RemoteModel]:  # noqa: ASYNC109
    """The model of `spec`, with its connections, which are closed with the block. `timeout` as in `open_model`."""
    hooks = {"response": [_record]}
    async with httpx2.AsyncClient(timeout=HTTP_TIMEOUT, limits=LIMITS, event_hooks=hooks) as client:
        yield RemoteModel(VENDORS[spec.provider](spec, client), spec, timeout)


async def _record(response: httpx2.Response) -> None:
    _sending.get().responses.append(response)


class RemoteModel:
    """A model at a provider. `silence` is how many seconds it may say nothing, be it text or thoughts."""

    framework = f"pydantic-ai {version('pydantic-ai-slim')}"

    def __init__(self, vendor: VendorModel, spec: ModelSpec, silence: float) -> None:
        self._vendor = vendor
        self._failures = Failures(spec, silence)
        self._silence = silence
        self.name = spec.name

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str | Usage, None]:
        exchange = _Exchange(self._vendor, self._failures, self._silence)
        try:
            await exchange.open(translate(conversation))
            while (piece := await exchange.piece()) is not None:
                yield piece
            if (usage := exchange.usage()) is not None:
                yield usage
        finally:
            await exchange.close()


class _Exchange:
    """One request to a model, and its response as it comes. Every failure is a ModelError."""

    def __init__(self, vendor: VendorModel, failures: Failures, silence: float) -> None:
        self._vendor = vendor
        self._failures = failures
        self._silence = silence
        self._stack = AsyncExitStack()
        self._began = False
        self.responses: list[httpx2.Response] = []

    async def open(self, messages: list[ModelMessage]) -> None:
        with self._step():
            async with asyncio.timeout(self._silence):
                stream = model_request_stream(self._vendor, messages)
                self._response = await self._stack.enter_async_context(stream)

    async def piece(self) -> str | None:
        """The next piece of text; None once the reply has come to a good end."""
        while (event := await self._event()) is not None:
            if text := _text(event):
                self._began = True
                return text
        failure = self._failures.of_ending(self._response.finish_reason, began=self._began)
        if failure is not None:
            raise failure
        return None

    def usage(self) -> Usage | None:
        usage = self._response.usage
        return Usage(usage.input_tokens, usage.output_tokens) if usage.output_tokens else None

    async def _event(self) -> ModelResponseStreamEvent | None:
        with self._step():
            async with asyncio.timeout(self._silence):
                return await anext(aiter(self._response), None)

    @contextmanager
    def _step(self) -> Iterator[None]:
        token = _sending.set(self)
        try:
            yield
        except Exception as error:  # of the vendor's library: they raise all kinds
            response = self.responses[-1] if self.responses else None
            raise self._failures.of_exception(error, response, began=self._began) from error
        finally:
            _sending.reset(token)

    async def close(self) -> None:
        """Close the connection, unless the response was read to its end. The rest is for nobody to see."""
        # First what is below the library: Google's would read a response to its end before it closes it.
        for close in (*(response.aclose for response in self.responses), self._stack.aclose):
            with suppress(Exception):  # what a library says when its connection is taken away
                await close()


def translate(conversation: Sequence[Message]) -> list[ModelMessage]:
    """Messages of one side that follow each other become one: some servers insist that the sides take turns.

    That is so where a turn had no reply, or an empty one.
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


def _text(event: ModelResponseStreamEvent) -> str:
    """What is for the user in an event; thoughts are not."""
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text
    return ""

"""Chat completion chunks, as OpenAI's API streams them: https://platform.openai.com/docs/api-reference/chat-streaming."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError, Truncated
from ..events import Degraded, Entries, Farewell, Notice, Outcome, Reset, encode_data
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire
from .sse import SSEDecoder

DONE_MARK = "[DONE]"
"""The data of the event that completes a stream of chunks."""

_DONE = f"data: {DONE_MARK}\n\n".encode()


class OpenAIEncoder(Encoder):
    """Writes a string as a content delta, and a dict as the delta itself. The `finish_reason` is always `stop`.

    It writes neither ids nor retry, because clients of this API do not expect them.
    """

    ping = b": ping\n"

    def __init__(self, stream: str, created: int, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{stream}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self.preamble = self._chunk({"role": "assistant", "content": ""}, None)

    def encode(self, entries: Entries) -> bytes:
        return b"".join([self._chunk(_delta(json), None) for json in entries.json])

    def notice(self, notice: Notice, cursor: str) -> bytes:
        if isinstance(notice, Outcome):
            return self._outcome(notice)
        if isinstance(notice, Reset):
            return _error(f"the stream cannot be continued: {notice.reason}", "stream_reset")
        if isinstance(notice, Farewell):
            # Clients of this API take any clean end as a complete answer.
            return _error(f"the server ended the connection before the answer: {notice.reason}", notice.reason)
        if isinstance(notice, Degraded):
            return b": degraded %b\n" % encode_data(notice.degraded)
        return b": dropped %d\n" % notice.count

    def _outcome(self, outcome: Outcome) -> bytes:
        # A user who stops an answer has everything that exists of it, and this API has no finish_reason for a stop.
        if outcome.state == "done" or outcome.code == "stopped":
            return self._chunk({}, "stop") + _DONE
        return _error(outcome.message or outcome.state, outcome.code)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: %b\n\n" % encode_data({**self._head, "choices": [choice]})


def _delta(json: bytes) -> dict[str, Any]:
    data = from_json(json)
    return data if isinstance(data, dict) else {"content": data if isinstance(data, str) else json.decode()}


def _error(message: str, code: str | None) -> bytes:
    return b"data: %b\n\n" % encode_data(
        {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    )


class OpenAIDecoder(Decoder):
    """Turns chunks into frames. An error chunk is the last frame, named `error`."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._events = SSEDecoder(max_bytes=max_bytes)
        self._ended = False

    def feed(self, data: bytes) -> list[Frame]:
        return [frame for event in self._events.feed(data) if (frame := self._read(event.data)) is not None]

    def close(self) -> list[Frame]:
        if not self._ended:
            raise Truncated("expected data: [DONE] before the end, but the bytes stopped")
        return []

    def _read(self, data: str | None) -> Frame | None:
        if data is None or self._ended:
            return None
        if data == DONE_MARK:
            self._ended = True
            return Frame({}, "done")
        try:
            chunk = from_json(data)
        except ValueError as error:
            raise DecodeError(f"expected a chunk of JSON, but got {data!r:.80}: {error}") from None
        if not isinstance(chunk, dict):
            raise DecodeError(f"expected a chunk to be an object, but got {data!r:.80}")
        if failure := chunk.get("error"):
            self._ended = True
            return Frame(failure if isinstance(failure, dict) else {"message": failure}, "error")
        return Frame(chunk)


def read_failure(last: Frame | None) -> Outcome | None:
    """Return a stream's failure if its last event is an error, `{"error": {"message": …, "code": …}}` without an id."""
    if last is None or last.id is not None or not isinstance(last.data, dict) or last.data.keys() != {"error"}:
        return None
    error: Any = last.data["error"]
    if not isinstance(error, dict):
        return None
    return Outcome("error", _text(error.get("code") or error.get("type")), _text(error.get("message")))


def is_unfinished(last: Frame | None) -> bool:
    """Tell whether a stream's last event is a chunk in which no choice has a `finish_reason`, so others must follow."""
    if last is None or not isinstance(last.data, dict) or last.data.get("object") != "chat.completion.chunk":
        return False
    choices = last.data.get("choices")
    return isinstance(choices, list) and bool(choices) and all(map(_goes_on, choices))


def _goes_on(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("finish_reason") is None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


class OpenAIChunks(Wire):
    """`chat.completion.chunk` objects as Server-Sent Events, ended by `data: [DONE]`."""

    media_type = "text/event-stream"
    # OpenAI's own clients send `Accept: application/json` even when they ask for a stream.
    aliases = ("application/json",)
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str = "tailrace") -> None:
        self.model = model

    def encoder(self, stream: str, epoch: str, created: int) -> OpenAIEncoder:
        return OpenAIEncoder(stream, created, self.model)

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> OpenAIDecoder:
        return OpenAIDecoder(max_bytes=max_bytes)

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}}}

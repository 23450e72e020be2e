"""A reply as one document, read from its log when it has ended."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json

from .. import Log, Outcome
from .objects import FailedReply, Reply
from .wire import failure_of

_STATUS = {
    "context_too_long": 413,
    "model_refused": 422,
    "internal_error": 500,
    "storage_failed": 500,
    "interrupted": 503,
    "model_rate_limited": 503,
    "model_unavailable": 503,
}
"""By the code of the failure; 502 for what else the model can fail with."""


async def read_reply(log: Log) -> Response:
    """Waits for the end. What failed is never answered by a status of success; what there was of it is in `data`."""
    data: list[dict[str, Any]] = []
    with log.tail() as tail:
        async for entries in tail:
            data += [{**entry.data, "id": str(log.cursor(entry.offset))} for entry in entries]
    if not data or data[-1]["type"] != "complete":
        assert log.outcome is not None, "a tail ends when its log has"
        return _failed(*_failure(log.outcome, data), data)
    info, status, *chunks, complete = data
    reply = Reply.model_construct(
        session_id=info["session_id"],
        stream_id=info["stream_id"],
        model=info["model"],
        text="".join(chunk["text"] for chunk in chunks),
        state=complete["state"],
        total_chunks=complete["total_chunks"],
        processing_time=complete["processing_time"],
        message_count=complete["message_count"],
        context_messages=status["context_messages"],
        data=data,
    )
    return Response(to_json(reply.__dict__), media_type="application/json", headers={"Cache-Control": "no-store"})


def _failure(outcome: Outcome, data: list[dict[str, Any]]) -> tuple[str, str]:
    """Its code and its message, which a stopped stream says in its last object."""
    if data and data[-1]["type"] == "error":
        return data[-1]["code"], data[-1]["message"]
    return failure_of(outcome)


def _failed(code: str, message: str, data: list[dict[str, Any]]) -> Response:
    failed = FailedReply.model_construct(detail=message, code=code, data=data)
    headers = {"Cache-Control": "no-store"}
    status = _STATUS.get(code, 502)
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(failed.__dict__, status, headers)

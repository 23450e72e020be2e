"""One reply, from the objects of its stream to what is shown of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from ...client import ChatObject, Chunk, Complete, SessionInfo, Status
from .formatting import count
from .state import short

if TYPE_CHECKING:
    from .view import View

Ended = Literal["complete", "stopped", "failed", "left"]


class Reply:
    """Gives a view each piece of the text once, also where the server begins again with what it has kept."""

    def __init__(self, view: View) -> None:
        self.info: SessionInfo | None = None
        self.complete: Complete | None = None
        self.chunks = 0
        self.lost = False
        """Whether the connection is gone, and the view has said so."""
        self._view = view
        self._begun = asyncio.Event()
        self._context: int | None = None
        self._shown = ""
        self._again: str | None = None  # after a reset, the text that has come again

    async def stream_id(self) -> str:
        """Of the stream, as soon as it is known."""
        await self._begun.wait()
        assert self.info is not None
        return self.info.stream_id

    def take(self, each: ChatObject) -> None:
        """The next object."""
        self._view.take(each)
        if each.type == "reset":
            self._reset()
            return
        self.lost = False
        if isinstance(each, Chunk):
            self._add(each.text)
        elif isinstance(each, SessionInfo):
            if self.info is None:
                self._view.begin(f"{short(each.session_id)} · {each.model}")
            self.info = each
            self._begun.set()
        elif isinstance(each, Status):
            # After a reset it is that of the repetition, which the model was not asked for.
            self._context = each.context_messages if self._context is None else self._context
        elif isinstance(each, Complete):
            self.complete = each

    def lose(self, attempt: int, attempts: int, seconds: float) -> bool:
        """The connection is gone, and the next attempt follows so much later; whether that is news."""
        is_news, self.lost = not self.lost, True
        if is_news:
            lost = self.info is not None
            self._view.note("connection lost, reading on …" if lost else "no connection, trying again …")
        self._view.wait(f"attempt {attempt} of {attempts} in {seconds:.1f} s")
        return is_news

    def summary(self, seconds: float, ended: Ended, reason: str = "") -> str:
        """The line below it."""
        if self.complete is not None:
            seconds = self.complete.processing_time
        facts = [ended, count(self.chunks, "chunk"), f"{seconds:.1f} s", count(self._context or 0, "context message")]
        line = " · ".join(facts)
        return f"{line}: {reason}" if reason else line

    def _reset(self) -> None:
        self.lost = True
        self._again = ""
        self._view.note("the stream began again at the server, going on with what it has kept …")

    def _add(self, text: str) -> None:
        if self._again is None:
            self._show(text)
            return
        self._again += text
        if self._again.startswith(self._shown):
            new, self._again = self._again[len(self._shown) :], None
            self._show(new)
        elif not self._shown.startswith(self._again):
            kept, self._again, self._shown = self._again, None, ""
            self._view.note("what the server has kept differs from the text above; it is this:")
            self._show(kept)

    def _show(self, text: str) -> None:
        self._shown += text
        if text:
            self.chunks += 1
            self._view.piece(text)

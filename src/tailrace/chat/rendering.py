"""Replies as HTML: a second log beside each reply that somebody reads so, and the HTML of stored messages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .. import Engine, Entry, Log, LogExists, Result, Retention, StreamError, Tail, encode_data
from .wire import end_of

if TYPE_CHECKING:
    from .markdown import Renderer

logger = logging.getLogger("tailrace.chat")

T = TypeVar("T")

Row: TypeAlias = tuple[str | None, bytes]
"""An event name and data as one line of JSON, as a log keeps them."""

Block: TypeAlias = dict[str, Any]
"""A `number` and its `html`."""

PATH = "/chat/stream/html"

THREADS = 2
"""The threads that render. One long reply does not hold up all others."""

SLICE = 0.01
"""Seconds after which a thread returns what it has rendered, so that readers get it."""

CACHE = 16 << 20
"""The most bytes of HTML of stored messages that are kept."""

PAGE = 1 << 20
"""The most characters of text that are rendered for one request for a session's messages."""

# Readers must be able to read a reply from its beginning, however long the model makes it.
KEEP_ALL = Retention(count=None, size=None)


class Rendering:
    """Renders the Markdown of replies in its own threads.

    Without the extra `markdown`, it is not `available`: then it returns replies as they are, and None as HTML.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cache = Cache(CACHE)
        self._threads = ThreadPoolExecutor(THREADS, "tailrace markdown")
        try:
            from . import markdown
        except ModuleNotFoundError as error:
            logger.info("replies are not rendered as HTML without %s: pip install 'tailrace[markdown]'", error.name)
            self.available = False
        else:
            self.available = True
            self._renderer, self._render = markdown.Renderer, markdown.render

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Render in this block. Close the engine within it."""
        try:
            yield
        finally:
            await asyncio.to_thread(self._threads.shutdown)

    async def follow(self, reply: Log) -> Log:
        """Return the log of a reply's objects with HTML, or the reply itself if there is no renderer.

        All readers share the log. It is made when the first one asks, by whichever process does so first, and it goes
        on without readers. It never holds up the reply.
        """
        if not self.available:
            return reply
        stream_id = reply.name.rpartition("/")[2]
        log = await self._engine.find(f"{PATH}/{stream_id}")
        if log is not None and _is_abandoned(log, reply):
            await self._engine.forget(log)
            log = None
        while log is None:
            try:
                log = await self._engine.new_stream(PATH, stream_id=stream_id, retention=KEEP_ALL)
            except LogExists:  # another caller was faster
                if (log := await self._engine.find(f"{PATH}/{stream_id}")) is None:
                    raise  # the producer of a forgotten log has yet to end
            else:
                await self._produce(log, reply)
        return log

    async def _produce(self, log: Log, reply: Log) -> None:
        try:
            await self._engine.produce(log, self._objects(reply), encode=_as_it_is)
        except BaseException:  # a cancellation, too: others may read the log already, and would wait forever
            await self._engine.forget(log)
            raise

    async def html_of(self, texts: Sequence[str]) -> list[str | None]:
        """Return the HTML of some texts, the last ones first if they are too long together for all of them."""
        found: list[str | None] = []
        room = PAGE
        for text in reversed(texts):
            room -= len(text)
            found.append(await self._html_of(text) if self.available and room >= 0 else None)
        return found[::-1]

    async def _html_of(self, text: str) -> str | None:
        if (html := self._cache.get(text)) is None:
            try:
                html = await asyncio.get_running_loop().run_in_executor(self._threads, self._render, text)
            except Exception:  # a library's error must not hide the session
                logger.exception("a reply of %d characters cannot be rendered", len(text))
                return None
            self._cache.put(text, html)
        return html

    async def _objects(self, reply: Log) -> AsyncGenerator[Row | Result, None]:
        """Yield the objects of a reply, with the blocks of HTML that each chunk changes. End as the reply does."""
        stopped = False
        with reply.tail() as tail:
            follower = Follower(tail, self._threads, self._renderer())
            try:
                async for row in follower.rows():
                    yield row
            except asyncio.CancelledError:
                # Only the end of the server stops this log. Then the reply ends as well, and its readers get all of it.
                stopped = True
                async for row in follower.rows():
                    yield row
        assert reply.outcome is not None, "a tail ends when its log has"
        end = end_of(reply.outcome)
        yield Result({**end, "blocks": follower.last} if follower.last else end)
        if end["type"] == "error" and not stopped:
            raise StreamError(end["message"], code=end["code"])


class Follower:
    """Reads a reply and renders it. After a cancellation, `rows` can be called again and continues."""

    def __init__(self, tail: Tail, threads: ThreadPoolExecutor, renderer: Renderer) -> None:
        self.last: list[Block] = []
        """The blocks that only the end of the reply completes, if it failed."""
        self._tail = tail
        self._threads = threads
        self._renderer: Renderer | None = renderer
        self._entries: Sequence[Entry] = ()
        self._work: asyncio.Future[Any] | None = None

    async def rows(self) -> AsyncGenerator[Row, None]:
        """Yield each object as an event name and JSON."""
        while True:
            while self._entries:
                for row in await self._in_thread(self._annotate):
                    yield row
            try:
                self._entries = await anext(self._tail)
            except StopAsyncIteration:
                break
        self.last = await self._in_thread(self._close)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread, or wait for what runs there already."""
        if self._work is None:
            self._work = asyncio.get_running_loop().run_in_executor(self._threads, work)
        result: T = await asyncio.shield(self._work)
        self._work = None
        return result

    # In a thread

    def _annotate(self) -> list[Row]:
        """Take some of the entries, and return them with their blocks."""
        rows: list[Row] = []
        until = time.perf_counter() + SLICE
        for entry in self._entries:
            rows.append((entry.event, self._with_blocks(entry)))
            if time.perf_counter() > until:
                break
        self._entries = self._entries[len(rows) :]
        return rows

    def _with_blocks(self, entry: Entry) -> bytes:
        if entry.event is not None or self._renderer is None or (data := entry.data)["type"] != "chunk":
            return entry.json
        blocks = self._blocks(data["text"], whole=data["is_final"])
        return entry.json if blocks is None else b'%b,"blocks":%b}' % (entry.json[:-1], encode_data(blocks))

    def _blocks(self, text: str, *, whole: bool) -> list[Block] | None:
        """Return the blocks that change. If rendering fails, the rest of the reply is only text, and this is None."""
        if self._renderer is None:
            return None
        try:
            blocks = self._renderer.feed(text)
            if whole:
                blocks |= self._renderer.close()
        except Exception:  # a library's error must not end the reply
            logger.exception("%s: the text cannot be rendered", self._tail.log.name)
            self._renderer = None
            return None
        return [{"number": number, "html": blocks[number]} for number in sorted(blocks)]

    def _close(self) -> list[Block]:
        return self._blocks("", whole=True) or []


class Cache:
    """Keeps the HTML of texts that were used last, within a number of bytes."""

    def __init__(self, size: int) -> None:
        self.room = size
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, text: str) -> str | None:
        key = _key(text)
        if (html := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return html.decode()

    def put(self, text: str, html: str) -> None:
        key, kept = _key(text), html.encode()
        self.room += len(self._kept.pop(key, b"")) - len(kept)
        self._kept[key] = kept
        while self.room < 0:
            _, dropped = self._kept.popitem(last=False)
            self.room += len(dropped)


def _key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _is_abandoned(log: Log, reply: Log) -> bool:
    """Tell whether a log with HTML ended because its process died, although the reply has another end."""
    ends = [None if each.outcome is None else each.outcome.code for each in (log, reply)]
    return ends[0] == "producer_lost" != ends[1]


def _as_it_is(row: Row) -> Row:
    """Return a row, which is encoded already."""
    return row

"""A WebSocket client's messages on their way to the address that the response names."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from secrets import token_urlsafe

from .exchange import Answer

MAX_MESSAGES = 256
MAX_BYTES = 1 << 20
"""The most messages of a client, and their bytes, that wait to be posted. A single message may be larger."""

STALL = 60.0
"""The seconds in which the application must accept a message, if the client has sent more than is kept."""

FIRST_DELAY = 0.01
"""The seconds before the first new attempt. Each further one waits twice as long, up to what the application asks."""

LINGER = 5.0
"""The seconds in which the messages of a client that has left must be posted."""

REFUSED = "refused"
"""The event name for the refusal of a message. Unlike `error`, it is not about the stream, which goes on."""

UNKNOWN = 503
"""The status of an application that does not know whether it has accepted the messages."""

_GONE = frozenset({404, 410})


class Posts:
    """Posts messages in the order in which they came, one request at a time.

    Messages that come during a request go together in the next one, one a line. A request is accepted as a whole or not
    at all. After a refusal, the next one has half as many lines, so only the bad ones are lost in the end. After
    each success, it has twice as many. While the application asks for a later attempt, the messages wait.

    A 503 does not tell whether the messages were accepted. So the same lines are posted again with the same
    Idempotency-Key, until there is another answer. Other requests have other keys.
    """

    def __init__(
        self, post: Callable[[bytes, bytes], Awaitable[Answer]], tell: Callable[[str], Awaitable[None]]
    ) -> None:
        """Post by `post`, which gets a body and a key, and call `tell` with a message for each refusal."""
        self._post = post
        self._tell = tell
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._most = MAX_MESSAGES  # the lines of the next request
        self._delay = FIRST_DELAY
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def first(self) -> str:
        """The message that waits longest, on one line. Empty if none waits."""
        return self._lines[0][:-1].decode() if self._lines else ""

    async def put(self, text: str) -> None:
        """Add a message. Wait while too many are unposted, so that the client is held back.

        Raise TimeoutError if there is no room for it within STALL seconds.
        """
        if not self.put_nowait(text):
            await self._wait_room(len(_line_of(text)))
            self.put_nowait(text)

    def put_nowait(self, text: str) -> bool:
        """Add a message, and return True. Return False if there is no room for it."""
        line = _line_of(text)
        if line.isspace() or self._over.is_set():
            return True  # NDJSON has no empty lines
        if not self._has_room_for(len(line)):
            return False
        self._lines.append(line)
        self._size += len(line)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="tailrace posts")
        return True

    def begin(self) -> None:
        """Post from now on."""
        self._begun.set()

    async def drain(self) -> None:
        """Wait until everything is posted, for at most LINGER seconds. Then give up the rest."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LINGER)
        await self.close()

    async def close(self) -> None:
        """Give up what is unposted. Let the request that runs finish, for at most LINGER seconds."""
        self._stop()
        if self._task is not None:
            try:
                await asyncio.wait([self._task], timeout=LINGER)
            finally:
                self._task.cancel()
            await asyncio.wait([self._task])

    async def _wait_room(self, size: int) -> None:
        try:
            async with asyncio.timeout(STALL):
                while not self._has_room_for(size):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise TimeoutError(f"no message was accepted for {STALL:g} s") from None

    def _has_room_for(self, size: int) -> bool:
        return not self._lines or (len(self._lines) < MAX_MESSAGES and self._size + size <= MAX_BYTES)

    async def _run(self) -> None:
        await self._begun.wait()
        while self._lines:
            lines = list(islice(self._lines, self._most))
            answer = await self._post_once(b"".join(lines))
            if not self._over.is_set():
                await self._settle(len(lines), answer)

    async def _post_once(self, body: bytes) -> Answer:
        """Post a body until it is known whether it was accepted. Return the last answer."""
        key = token_urlsafe(16).encode()
        answer = await self._post(body, key)
        is_unknown = answer.status == UNKNOWN
        while is_unknown and answer.retry_after is not None:
            await self._wait_for(answer.retry_after)
            if self._over.is_set():
                break
            answer = await self._post(body, key)
        return answer

    async def _settle(self, count: int, answer: Answer) -> None:
        """Remove the lines that were answered. The others are posted again."""
        if answer.status < 300:
            self._remove(count)
            self._most, self._delay = min(2 * self._most, MAX_MESSAGES), FIRST_DELAY
        elif answer.retry_after is not None:
            # There may be room for fewer lines, and much earlier than Retry-After says: it counts whole seconds.
            self._most = max(count // 2, 1)
            await self._wait_for(answer.retry_after)
        elif answer.status in _GONE:
            self._stop()
            await self._tell(answer.as_message(REFUSED))
        elif count > 1:
            self._most = count // 2
        else:
            self._remove(1)
            await self._tell(answer.as_message(REFUSED))

    def _remove(self, count: int) -> None:
        for _ in range(count):
            self._size -= len(self._lines.popleft())
        self._room.set()

    async def _wait_for(self, retry_after: float) -> None:
        """Wait before a new attempt, for at most as long as the application asks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._delay, retry_after)):
                await self._over.wait()
        self._delay *= 2

    def _stop(self) -> None:
        self._lines.clear()
        for event in (self._over, self._begun, self._room):
            event.set()


def _line_of(text: str) -> bytes:
    # JSON has no raw line ends in its strings, so these are white space (RFC 8259, section 7).
    return text.replace("\r", " ").replace("\n", " ").encode() + b"\n"

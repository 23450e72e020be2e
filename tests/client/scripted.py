"""A core without its driver: what it wants, when it is told what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailrace.client.core import Following
from tailrace.client.settings import Loss, Plan, Retry
from tailrace.client.transport import Close, Command, Ended, Failed, Give, Open, Opened, Read, Sleep
from tailrace.errors import TailraceError

URL = "http://server/stream"
STREAM = "S.e"
ADDRESS = {"tailrace-cursor": f"{STREAM}.0", "content-location": "/stream/S", "link": '</stream/S/stop>; rel="stop"'}

BROKEN = Failed(Loss("broken", "broken off"))
UNSENT = Failed(Loss("unsent", "refused"))
OURS = Failed(Loss("broken", "ours"), ours=True)
WHOLE = Ended()


def sse(headers: Mapping[str, str] = ADDRESS, status: int = 200, url: str = URL, asked: str = URL) -> Opened:
    return Opened(status, {"content-type": "text/event-stream", **headers}, url, asked)


def head(status: int = 200, content_type: str = "application/json", **headers: str) -> Opened:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Opened(status, {"content-type": content_type, **named}, URL, URL)


def event(offset: int, data: str | None = None, name: str | None = None, *, end: str = "") -> bytes:
    named = "" if name is None else f"event: {name}\n"
    return f"id: {STREAM}.{offset}{end}\n{named}data: {offset if data is None else data}\n\n".encode()


def notice(name: str, offset: int, data: str = "{}") -> bytes:
    return event(offset, data, name, end=".end" if name in ("done", "error", "cancelled") else "")


@dataclass
class Followed:
    """What a core did with a script of replies."""

    core: Following
    opened: list[Open] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    ended: bool = False
    left: list[object] = field(default_factory=list)
    error: Exception | None = None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def follow(
    script: Sequence[object],
    plan: Plan | None = None,
    clock: Clock | None = None,
    *,
    fails: bool = False,
    **options: Any,
) -> Followed:
    """Run a core on replies to its requests and reads, in this order; an int among them lets so many seconds pass.

    Where the script ends before the stream does, the core is left as it is. The error of one that `fails` is kept.
    """
    clock = clock or Clock()
    plan = plan or Plan(**{"url": URL, "retry": Retry(base=0.0, limit=3), **options})
    followed = Followed(Following(plan, clock=clock), left=list(script))
    flow = followed.core.run()
    reply: object = None
    while True:
        try:
            command: Command = flow.send(reply)
        except StopIteration:
            followed.ended = True
            return followed
        except TailraceError as error:
            followed.error = error
            if not fails:
                raise
            return followed
        reply = None
        if isinstance(command, Give):
            followed.given += [frame.data if frame.event is None else frame.event for frame in command.frames]
        elif isinstance(command, Sleep):
            followed.slept.append(command.seconds)
            clock.now += command.seconds
        elif isinstance(command, Open | Read):
            if isinstance(command, Open):
                followed.opened.append(command)
            while followed.left and isinstance(followed.left[0], int):
                clock.now += int(str(followed.left.pop(0)))
            if not followed.left:
                return followed
            reply = followed.left.pop(0)
        else:
            assert isinstance(command, Close)

"""The settings of a stream, as an application gives them to a route or a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..events import Encode, encode_event
from ..flow import Flow, Retention
from ..modes import DEFAULT_WIRES
from ..producer import Describe, OnDisconnect, describe_error
from ..wire.base import Wire


class StreamOptions(TypedDict, total=False):
    """The settings of StreamSettings as keywords."""

    wires: Sequence[Wire]
    flow: Flow | None
    retention: Retention | None
    on_disconnect: OnDisconnect
    grace: float
    status_wait: float
    cache_control: str | None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The settings of a stream: how it is produced, and how clients read it.

    - `wires`: the representations on offer. Clients that express no preference get the first one.
    - `flow`: the policy for slow readers. Default: `block`, but `log` for detached streams and shared logs.
    - `retention`: how much history to keep for resuming. Default: the engine's.
    - `on_disconnect`: `cancel` stops the generator `grace` seconds after the last reader left; `detach` lets it finish.
    - `status_wait`: how many seconds the headers wait for the first event. An error before it becomes an HTTP status.
    - `cache_control`: the response's Cache-Control. Default: `no-cache, no-transform` for streams, `no-store` for
      documents.
    - `encode`: a function from an item to its event name and its JSON.
    - `describe`: a function from an exception to the outcome that clients see.
    """

    wires: Sequence[Wire] = DEFAULT_WIRES
    flow: Flow | None = None
    retention: Retention | None = None
    on_disconnect: OnDisconnect = "cancel"
    grace: float = 10.0
    status_wait: float = 1.0
    cache_control: str | None = None
    encode: Encode = encode_event
    describe: Describe = describe_error


DEFAULT_SETTINGS = StreamSettings()

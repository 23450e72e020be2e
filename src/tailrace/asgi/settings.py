"""How a stream is produced and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..events import Encode, encode_event
from ..flow import Flow, Retention
from ..modes import DEFAULT_WIRES
from ..producer import Describe, OnDisconnect, describe_error
from ..wire.base import Wire


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a route says of its streams.

    - `wires`: what a stream is offered as; the first is for clients that leave the choice.
    - `flow`: what happens when a reader is slow. Default `block`, but `log` for detached streams and for shared logs.
    - `retention`: how much history is kept for resuming. Default: the engine's.
    - `on_disconnect`: `cancel` the generator `grace` seconds after the last reader left, or `detach` it: it finishes.
    - `status_wait`: the headers wait so many seconds for the first event, so that an early failure still becomes an
      HTTP status.
    - `encode`, `describe`: an item as event name and JSON, an exception as a public outcome.
    """

    wires: Sequence[Wire] = DEFAULT_WIRES
    flow: Flow | None = None
    retention: Retention | None = None
    on_disconnect: OnDisconnect = "cancel"
    grace: float = 10.0
    status_wait: float = 1.0
    encode: Encode = encode_event
    describe: Describe = describe_error

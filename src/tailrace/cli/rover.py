"""`tailrace rover`: the options of mission control."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from .command import Command, UsageError
from .serve import is_loopback, listen, port_of, url_of

HOST, PORT = "127.0.0.1", "8000"

EVERY = 0.05, 3_600.0
SPEED = 0.01, 5_000.0
"""The least and the most. A faster mission would be much work at each reading, because the simulation's steps are of
half a minute at most."""

EPILOG = """\
The image is painted at the first start, which takes some seconds, and is kept in your cache directory. Servers that
share a redis:// URL share the rover: one of them flies it, and if that one dies, another goes on."""


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--host", metavar="ADDRESS", default=HOST, help=f"the address to listen on [default: {HOST}]")
    add("--port", metavar="PORT", default=PORT, help=f"the port; 0 picks a free one [default: {PORT}]")
    add("--image", metavar="FILE", help="the image to send [default: a panorama of Mars]")
    add("--every", metavar="SECONDS", help="the time between two readings [default: 2]")
    add("--speed", metavar="N", help="how many times faster the mission runs [default: 24.66, a sol in an hour]")
    add("--seed", metavar="N", help="a whole number; each gives another drive [default: 1]")
    add("--streams", metavar="URL", help="where the streams live: memory:// or redis://… [default: memory://]")


def run(options: Namespace) -> int:
    """Serve until a signal arrives, and return the exit status."""
    port = port_of(options.port, "--port")
    settings = _settings(options)
    try:
        from .control import check, serve
    except ModuleNotFoundError as error:
        needs = f"needs the extra rover, but there is no {error.name}: pip install 'tailrace[rover]'"
        raise UsageError(needs) from None
    with listen(options.host, port) as listener:
        settings["image"] = check(None if options.image is None else Path(options.image), options.streams)
        return serve(listener, url_of(options.host, listener), settings)


ROVER = Command("rover", "Run mission control: a simulated rover on Mars, with a dashboard.", configure, run)


def _settings(options: Namespace) -> dict[str, Any]:
    """Return the options that are given, as `create_app` takes them."""
    settings = {
        "every": _number(options.every, "--every", "seconds", *EVERY),
        "speed": _number(options.speed, "--speed", "a number", *SPEED),
        "seed": _seed(options.seed),
        "streams": options.streams,
        # A page can make its own name lead to this machine, so a server that others cannot reach knows its names.
        "hosts": (options.host,) if is_loopback(options.host) else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _number(value: str | None, name: str, what: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise UsageError(f"expected {name} to be {what} from {least:g} to {most:g}, but got {value!r}")
    return number


def _seed(value: str | None) -> int | None:
    if value is not None and not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise UsageError(f"expected --seed to be a whole number of at most 18 digits, but got {value!r}")
    return None if value is None else int(value)

"""Serve an example on the port that the command line names. All examples share this."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

HOST = "127.0.0.1"


def run(app: FastAPI | Callable[..., FastAPI], **options: float) -> None:
    """Serve an application on 127.0.0.1 until Ctrl-C.

    A function makes the application. Its keyword `options`, here with their defaults, become options of the command.
    """
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=port_number, default=8000, help="default %(default)s; 0 picks a free port")
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=float, default=default, help="in seconds; default %(default)g")
    arguments = vars(parser.parse_args())
    port = arguments.pop("port")
    if (error := refusal(port)) is not None:
        other = next((other for other in range(max(port, 1023) + 1, 65536) if refusal(other) is None), 0)
        command = shlex.join([os.path.relpath(sys.executable), *program(), "--port", str(other)])
        sys.exit(f"Cannot use port {port} ({error}). Choose another: {command}")
    if not isinstance(app, FastAPI):
        app = app(**arguments)
    # Without a bound, uvicorn waits forever for a client that reads nothing.
    uvicorn.run(app, host=HOST, port=port, timeout_graceful_shutdown=20)


def program() -> list[str]:
    """Return what follows `python` on the command line: a script, or `-m` and a module."""
    spec = sys.modules["__main__"].__spec__
    return [sys.argv[0]] if spec is None else ["-m", spec.name]


def port_number(text: str) -> int:
    """Convert and check the value of `--port`."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, but got {text!r}")
    return int(text)


def refusal(port: int) -> str | None:
    """Return why nothing can listen on the port, or None if it is free."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None

"""What the examples share: the port to serve on, and a clear line where it is taken."""

import argparse
import errno
import socket
import sys

import uvicorn
from fastapi import FastAPI


def run(app: FastAPI) -> None:
    """Serve `app` on 127.0.0.1 until Ctrl-C."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 takes any that is free")
    port = parser.parse_args().port
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.exit(f"Port {port} is taken. Choose another: python {sys.argv[0]} --port {port + 1}")
    uvicorn.run(app, host="127.0.0.1", port=port)

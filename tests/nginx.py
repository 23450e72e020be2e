"""nginx for tests, with a configuration of the test."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.serving import accepting

# An ordinary user's path leaves out where Debian has it.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

_FOLDERS = "\n    ".join(
    f"{kind}_temp_path {{folder}};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


@asynccontextmanager
async def running_nginx(configuration: str, port: int, folder: Path) -> AsyncIterator[Process]:
    """nginx with a configuration that listens on `port`, and with all that it writes in `folder`."""
    program = shutil.which("nginx", path=_PLACES)
    if program is None:
        pytest.fail("expected nginx, but it is not installed: run `make test`, which sees to that")
    file = folder / "nginx.conf"
    configuration = re.sub(r"^pid .*\n", "", configuration, flags=re.M)
    file.write_text(configuration.replace("http {\n", f"http {{\n    {_FOLDERS.format(folder=folder)}\n", 1))
    # Its workers must reach the folder, which belongs to who runs the test.
    options = f"daemon off; pid {folder}/nginx.pid;" + (" user root;" if os.geteuid() == 0 else "")
    process = await asyncio.create_subprocess_exec(program, "-e", "stderr", "-g", options, "-c", str(file))
    try:
        await accepting(port)
        yield process
    finally:
        process.terminate()
        await process.wait()

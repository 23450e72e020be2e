"""A PostgreSQL server for tests: in a folder that goes away, on a socket in it, as fast as it can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "tailrace"

# Nothing has to survive these tests, so nothing is flushed. No port, so no clash.
CONFIGURATION = """
fsync = off
synchronous_commit = off
full_page_writes = off
listen_addresses = ''
unix_socket_directories = '{folder}'
"""


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of an empty database of a server that ends with the block."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="tailrace-") as name:
        folder = Path(name)
        if os.geteuid() == 0:  # as whom it refuses to run
            shutil.chown(folder, "postgres")
        data = folder / "data"
        _run(programs / "initdb", "--auth=trust", f"--username={USER}", "--no-sync", "-E", "UTF8", "-D", data)
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION.format(folder=folder))
        _run(programs / "pg_ctl", "start", "-w", "-t", "30", "-D", data, "-l", folder / "log")
        try:
            yield f"postgresql+asyncpg://{USER}@/postgres?host={folder}"
        finally:
            _run(programs / "pg_ctl", "stop", "-w", "-m", "immediate", "-D", data)


def _programs() -> Path:
    """Debian keeps them off the path, in a folder for each version."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = [initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not folders:
        pytest.fail("expected PostgreSQL, but it is not installed: run `make test`, which sees to that")
    return max(folders, key=lambda folder: int(folder.parent.name))


def _run(*command: str | Path) -> None:
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryFile() as output:  # no pipe: the server would keep it open, and it would be waited for
        result = subprocess.run(
            command,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=100,
        )
        if result.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{output.read().decode()}")

"""Files from every server, over real connections."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from tests.system.servers import KINDS, PATIENCE, Running, running

CONTENT = random.Random(0).randbytes(3 << 20)
BIG = 32 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "data.bin").write_bytes(CONTENT)
    os.utime(folder / "data.bin", (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Running]:
    with running(request.param, "tests.system.files_app:app", FOLDER=str(folder)) as instance:
        yield instance


@pytest_asyncio.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


async def test_a_file_comes_whole_and_in_ranges(client: httpx.AsyncClient) -> None:
    whole = await client.get("/data.bin")
    assert (whole.status_code, whole.content == CONTENT) == (200, True)
    head = await client.head("/data.bin")
    assert head.headers["content-length"] == str(len(CONTENT))
    rest = await client.get("/data.bin", headers={"Range": "bytes=1000000-"})
    assert (rest.status_code, rest.content == CONTENT[1_000_000:]) == (206, True)
    parts = await client.get("/data.bin", headers={"Range": "bytes=-2,0-1"})
    assert parts.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert len(parts.content) == int(parts.headers["content-length"])
    assert (await client.get("/data.bin", headers={"Range": f"bytes={len(CONTENT)}-"})).status_code == 416
    same = await client.get("/data.bin", headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert (await client.get("/%2e%2e/data.bin")).status_code == 404


async def test_a_file_that_changes_is_never_taken_for_a_whole_one(client: httpx.AsyncClient, folder: Path) -> None:
    with (folder / "big.bin").open("wb") as file:
        file.truncate(BIG)
        async with client.stream("GET", "/big.bin") as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            file.write(b"changed")
            file.flush()
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(piece async for piece in pieces if b"changed" in piece)


async def test_nothing_is_left_of_a_client_that_has_left(
    client: httpx.AsyncClient, server: Running, folder: Path
) -> None:
    path = folder / "left.bin"
    path.touch()
    os.truncate(path, BIG)
    for _ in range(3):
        async with client.stream("GET", "/left.bin") as response:
            await anext(response.aiter_raw())
    await nobody_has_open(path, server)


async def nobody_has_open(path: Path, server: Running) -> None:
    """Wait until a server has closed a file, for which there is no event to wait."""
    parent = psutil.Process(server.process.pid)
    processes = [parent, *parent.children(recursive=True)]
    async with asyncio.timeout(PATIENCE):
        while True:
            if not any(each.path == str(path) for process in processes for each in process.open_files()):
                return
            await asyncio.sleep(0.02)

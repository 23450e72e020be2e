"""What a client gets of a file, over real connections."""

from __future__ import annotations

import asyncio
import errno
import http.client
import itertools
import os
import random
import re
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from email.parser import BytesParser
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from tailrace import FileChanged, FileResponse
from tailrace.asgi import files
from tailrace.asgi.files import CHUNK_SIZE, OpenFile, _run, content_disposition, guess_media_type, in_thread
from tests.asgi.apps import Served, Server
from tests.raw import BOUND, Exchange, exchange, fetch
from tests.serving import listening_socket, serving
from tests.silence import silent_loop as silent_loop
from tests.sources import turns

pytestmark = pytest.mark.usefixtures("silent_loop")

CONTENT = random.Random(0).randbytes(3 * CHUNK_SIZE + 1)
MODIFIED = 1_700_000_000
DATE = formatdate(MODIFIED, usegmt=True)
BIG = 16 << 20
"""More than the buffers between a server and a client who does not read."""


NOT_FOUND = (404, b'{"detail":"there is no such file","code":"file_not_found"}')


def make(path: Path, content: bytes = CONTENT) -> Path:
    """Write a file that has not changed for long."""
    path.write_bytes(content)
    os.utime(path, (MODIFIED, MODIFIED))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "data.bin")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file have a strong tag at once. A test cannot set the time of change that the kernel keeps."""
    monkeypatch.setattr(files, "SETTLED_AFTER", -1)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = make(tmp_path / "big.bin", b"")
    os.truncate(path, BIG)
    os.utime(path, (MODIFIED, MODIFIED))
    return path


def descriptors(path: Path) -> int:
    """How many descriptors of this process are of a file, which may have another name by now."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += os.path.samestat(each.stat(), path.stat())
        except OSError:  # the descriptor of this very listing
            continue
    return found


# The whole file


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 7])
async def test_a_file_arrives_whole(size: int, tmp_path: Path, settled: None) -> None:
    content = random.Random(size).randbytes(size)
    app = Served(x=FileResponse(make(tmp_path / "photo.jpeg", content)))
    async with serving(app) as url:
        got, body = await fetch(url, "/x")
        head, _ = await fetch(url, "/x", method="HEAD")
    assert (got.status, body) == (200, content)
    assert got.headers["content-type"] == "image/jpeg"
    assert got.headers["content-length"] == str(size)
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["last-modified"] == DATE
    assert re.fullmatch('"[0-9a-f]{24}"', got.headers["etag"])
    assert "content-disposition" not in got.headers
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    assert descriptors(tmp_path / "photo.jpeg") == 0


async def test_the_application_s_own_headers_and_status_come_first(path: Path) -> None:
    own = {"ETag": '"v1"', "Last-Modified": formatdate(0, usegmt=True), "Cache-Control": "no-cache"}
    response = FileResponse(path, headers=own, media_type="text/csv", chunk_size=1000)
    async with serving(Served(x=response, error=FileResponse(path, status_code=404))) as url:
        got, body = await fetch(url, "/x")
        assert (got.headers["content-type"], body) == ("text/csv; charset=utf-8", CONTENT)
        assert own.items() <= {name.title().replace("Etag", "ETag"): value for name, value in got.fields}.items()
        assert (await fetch(url, "/x", {"If-None-Match": '"v1"'}))[0].status == 304
        assert (await fetch(url, "/x", {"Range": "bytes=0-0", "If-Range": '"v1"'}))[1] == CONTENT[:1]
        # There are no conditions on an error.
        got, body = await fetch(url, "/error", {"If-None-Match": "*", "Range": "bytes=0-0"})
        assert (got.status, body) == (404, CONTENT)


async def test_a_file_answers_a_post_without_conditions(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        got, body = await fetch(url, "/x", {"If-None-Match": "*", "Range": "bytes=0-0"}, method="POST", body=b"{}")
    assert (got.status, body) == (200, CONTENT)


async def test_fastapi_makes_a_response_of_a_path(path: Path) -> None:
    app = FastAPI()

    @app.get("/x", response_class=FileResponse)
    def read() -> Path:
        return path

    async with serving(app) as url:
        assert (await fetch(url, "/x"))[1] == CONTENT


async def test_a_response_can_be_sent_again(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        first, second = await asyncio.gather(fetch(url, "/x", {"Range": "bytes=-5"}), fetch(url, "/x"))
    assert (first[1], second[1]) == (CONTENT[-5:], CONTENT)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.html", "text/html"),
        ("a.JPG", "image/jpeg"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        # The body is not what is in the archive.
        ("a.tar.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.txt.bz2", "application/octet-stream"),
    ],
)
def test_a_name_has_a_media_type(name: str, media_type: str) -> None:
    assert guess_media_type(name) == media_type


# Names for downloads


FILENAMES: list[tuple[str, str, str | None]] = [
    ("report.pdf", "report.pdf", None),
    ("a b; c='d', (e).txt", "a b; c='d', (e).txt", None),
    ("Übergröße.txt", "_bergr__e.txt", "%C3%9Cbergr%C3%B6%C3%9Fe.txt"),
    ("写真 📷.jpg", "__ _.jpg", "%E5%86%99%E7%9C%9F%20%F0%9F%93%B7.jpg"),
    ('say "hi".txt', "say _hi_.txt", "say%20%22hi%22.txt"),
    ("100%41.txt", "100_41.txt", "100%2541.txt"),
    ("it's*.txt", "it's*.txt", None),
    ("é's*(1).txt", "_'s*(1).txt", "%C3%A9%27s%2A%281%29.txt"),
    # No separators, no control characters, no halves of characters.
    ("../a\\b/c", ".._a_b_c", None),
    ("a\r\nSet-Cookie: b\x00\x7f", "a__Set-Cookie: b__", None),
    ("\udcff\ud800", "__", "%EF%BF%BD%EF%BF%BD"),
    ("a\x85b\u202egpj.exe", "a_b_gpj.exe", None),
    ("צילום.jpg", "_____.jpg", "%D7%A6%D7%99%D7%9C%D7%95%D7%9D.jpg"),
    ("", "", None),
]


async def test_a_download_has_any_name(path: Path) -> None:
    responses = {f"x{number}": FileResponse(path, filename=each[0]) for number, each in enumerate(FILENAMES)}
    async with serving(Served(**responses)) as url:
        answers = [(await fetch(url, f"/{name}"))[0].headers["content-disposition"] for name in responses]
    assert answers == [
        f'attachment; filename="{plain}"' + (f"; filename*=UTF-8''{full}" if full else "")
        for _, plain, full in FILENAMES
    ]


async def test_a_file_with_a_name_may_be_shown(path: Path) -> None:
    response = FileResponse(path, filename="x.pdf", content_disposition_type="inline")
    async with serving(Served(x=response)) as url:
        got, _ = await fetch(url, "/x")
    assert got.headers["content-disposition"] == 'inline; filename="x.pdf"'
    assert got.headers["content-type"] == "application/pdf"


@given(st.text())
def test_the_name_of_a_download_is_printable_ascii_and_keeps_all_characters(name: str) -> None:
    header = content_disposition("attachment", name)
    assert re.fullmatch("[ -~]*", header)
    match = re.fullmatch(r"""attachment; filename="([^"\\/%]*)"(?:; filename\*=UTF-8''([\w.~!#$&+^`|%-]*))?""", header)
    assert match is not None
    kept = re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069/\\]", "_", name)
    assert (match[1] if match[2] is None else unquote(match[2])) == kept


# Ranges


def parts_of(got: Exchange | http.client.HTTPResponse, body: bytes, size: int) -> list[tuple[int, int, bytes]]:
    """Return the ranges of a 206 with their bytes, after checking that its headers are true."""
    headers = {name.lower(): value for name, value in (got.headers or {}).items()}
    assert headers["content-length"] == str(len(body))
    if not headers["content-type"].startswith("multipart/byteranges"):
        return [_part(headers["content-range"], body, size)]
    assert "content-range" not in headers
    message = BytesParser().parsebytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
    payloads: list[Any] = message.get_payload()  # type: ignore[assignment]
    assert all(each["content-type"] == "application/octet-stream" for each in payloads)
    # The email parser takes a line break off a binary part, so the bytes are found by their place.
    boundary = str(message.get_boundary()).encode()
    raw = [each.partition(b"\r\n\r\n")[2] for each in body.split(b"\r\n--" + boundary)[1:-1]]
    return [_part(each["content-range"], data, size) for each, data in zip(payloads, raw, strict=True)]


def _part(content_range: str, body: bytes, size: int) -> tuple[int, int, bytes]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
    assert match is not None
    start, last, total = map(int, match.groups())
    assert total == size
    assert last + 1 - start == len(body)
    return start, last + 1, body


N = len(CONTENT)


SLICES = [
    ("bytes=0-0", [slice(0, 1)]),
    ("bytes=0-", [slice(0, N)]),
    (f"bytes=0-{N + 5}", [slice(0, N)]),
    (f"bytes={N - 1}-", [slice(N - 1, N)]),
    (f"bytes=100-{CHUNK_SIZE * 2}", [slice(100, CHUNK_SIZE * 2 + 1)]),
    ("bytes=-1", [slice(-1, None)]),
    (f"bytes=-{N + 5}", [slice(0, N)]),
    ("bytes=0-4,10-14", [slice(0, 5), slice(10, 15)]),
    (f"bytes=-10,5-{CHUNK_SIZE * 2},0-0", [slice(-10, None), slice(5, CHUNK_SIZE * 2 + 1), slice(1)]),
    ("bytes=0-4,5-9", [slice(0, 10)]),
    (f"bytes=3-5,{N}-", [slice(3, 6)]),
]


async def test_ranges_are_slices_of_the_file(path: Path, settled: None) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        for header, expected in SLICES:
            got, body = await fetch(url, "/x", {"Range": header})
            assert (header, got.status) == (header, 206)
            assert [data for _, _, data in parts_of(got, body, N)] == [CONTENT[each] for each in expected]
            assert got.headers["last-modified"] == DATE
            assert got.headers["accept-ranges"] == "bytes"


async def test_a_range_that_the_file_lacks_is_refused_with_its_size(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        for header in (f"bytes={N}-", f"bytes={N}-{N + 1},{N + 9}-", "bytes=-0"):
            got, body = await fetch(url, "/x", {"Range": header})
            assert (got.status, got.headers["content-range"]) == (416, f"bytes */{N}")
            assert b'"code":"range_not_satisfiable"' in body


async def test_a_range_that_nobody_can_read_is_ignored(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        for header in ("lines=0-1", "bytes=5-1", "bytes=x", "bytes=" + ",".join(["0-0"] * 101)):
            got, body = await fetch(url, "/x", {"Range": header})
            assert (header, got.status, body) == (header, 200, CONTENT)


async def test_head_knows_no_ranges(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        got, _ = await fetch(url, "/x", {"Range": "bytes=0-1"}, method="HEAD")
    assert (got.status, got.headers["content-length"]) == (200, str(N))


SMALL = bytes(range(40))


class Oracle:
    """A server in a thread, and one connection to it."""

    def __init__(self, app: Any) -> None:
        self._listener = listening_socket()
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        host, port = self._listener.getsockname()
        self._client = http.client.HTTPConnection(host, port, timeout=BOUND)

    def get(self, header: str) -> tuple[http.client.HTTPResponse, bytes]:
        self._client.request("GET", "/x", headers={"Range": header})
        answer = self._client.getresponse()
        return answer, answer.read()

    def close(self) -> None:
        self._client.close()
        self._server.should_exit = True
        self._thread.join(BOUND)
        self._listener.close()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    oracle = Oracle(Served(x=FileResponse(make(tmp_path_factory.mktemp("oracle") / "small.bin", SMALL))))
    yield oracle
    oracle.close()


offsets = st.one_of(st.integers(0, len(SMALL) + 3), st.integers(0, 10**30))
wanted = st.one_of(
    st.tuples(offsets, st.none()),
    st.tuples(offsets, offsets).map(lambda each: (min(each), max(each))),
    st.tuples(st.none(), offsets),
)


def spelled(spec: tuple[int | None, int | None]) -> str:
    return "-".join("" if each is None else str(each) for each in spec)


def sliced(spec: tuple[int | None, int | None]) -> set[int]:
    """The offsets that a range names, by Python's own slices."""
    first, last = spec
    every = range(len(SMALL))
    if first is None:
        return set(every[-last:]) if last else set()
    return set(every[first : None if last is None else last + 1])


@given(st.lists(wanted, min_size=1, max_size=8), st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_any_ranges_bring_their_bytes_and_no_others(
    oracle: Oracle, specs: list[tuple[int | None, int | None]], comma: str
) -> None:
    got, body = oracle.get("bytes=" + comma.join(map(spelled, specs)))
    named = [found for spec in specs if (found := sliced(spec))]
    if not named:
        assert (got.status, got.headers["content-range"]) == (416, f"bytes */{len(SMALL)}")
        return
    assert got.status == 206
    parts = parts_of(got, body, len(SMALL))
    assert all(SMALL[start:end] == data for start, end, data in parts)
    sent = [offset for start, end, _ in parts for offset in range(start, end)]
    assert len(sent) == len(set(sent))
    assert set(sent) == set().union(*named)
    # Each part begins no later than its first range was asked for.
    order = [next(number for number, found in enumerate(named) if start <= min(found) < end) for start, end, _ in parts]
    assert order == sorted(order)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)).filter(lambda text: not re.search(r"\d", text)))
def test_any_header_without_a_range_brings_the_file(oracle: Oracle, text: str) -> None:
    got, body = oracle.get(f"bytes={text}")
    assert (got.status, body) == (200, SMALL)


# Conditions


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_client_that_has_the_file_gets_304(method: str, path: Path, settled: None) -> None:
    headers = {"Cache-Control": "max-age=60"}
    async with serving(Served(x=FileResponse(path, headers=headers, filename="x"))) as url:
        tag = (await fetch(url, "/x"))[0].headers["etag"]
        for condition in ({"If-None-Match": tag}, {"If-Modified-Since": DATE}):
            got, body = await fetch(url, "/x", condition, method=method)
            assert (got.status, body) == (304, b"")
            kept = {"etag": tag, "last-modified": DATE, "cache-control": "max-age=60", "accept-ranges": "bytes"}
            assert {name: value for name, value in got.fields if name not in ("date", "server")} == kept
        # The same file again, on the same version of it.
        got, body = await fetch(url, "/x", {"If-None-Match": '"other"', "Range": "bytes=0-1"})
        assert (got.status, body) == (206, CONTENT[:2])


async def test_a_client_that_wants_another_version_gets_412(path: Path) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        for condition in ({"If-Match": '"other"'}, {"If-Unmodified-Since": formatdate(MODIFIED - 1, usegmt=True)}):
            got, body = await fetch(url, "/x", {**condition, "Range": "bytes=0-1"})
            assert got.status == 412
            assert b'"code":"precondition_failed"' in body


@pytest.mark.parametrize("validator", ["etag", "last-modified"])
async def test_a_download_goes_on_only_in_the_version_in_which_it_began(
    validator: str, path: Path, settled: None
) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        began, body = await fetch(url, "/x", {"Range": "bytes=0-99"})
        resume = {"Range": "bytes=100-", "If-Range": began.headers[validator]}
        got, rest = await fetch(url, "/x", resume)
        assert (got.status, body + rest) == (206, CONTENT)
        path.write_bytes(CONTENT[::-1])
        got, rest = await fetch(url, "/x", resume)
        assert (got.status, rest) == (200, CONTENT[::-1])


async def test_a_file_that_may_change_unnoticed_is_never_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Served(x=FileResponse(path))) as url:
        began, _ = await fetch(url, "/x")
        assert began.headers["etag"].startswith('W/"')
        # A later version might have the same date, and have settled when the client comes back.
        assert "last-modified" not in began.headers
        for validator in (began.headers["etag"], DATE):
            got, body = await fetch(url, "/x", {"Range": "bytes=5-", "If-Range": validator})
            assert (got.status, body) == (200, CONTENT)
        cached = {"If-None-Match": began.headers["etag"]}
        assert (await fetch(url, "/x", cached))[0].status == 304
        # It may have changed once more before it settled.
        monkeypatch.setattr(files, "SETTLED_AFTER", -1)
        assert (await fetch(url, "/x", cached))[1] == CONTENT


@pytest.mark.parametrize("replacing", [False, True])
async def test_another_version_of_the_same_size_and_time_has_another_tag(
    replacing: bool, path: Path, settled: None
) -> None:
    tags = set()
    async with serving(Served(x=FileResponse(path))) as url:
        for content in (CONTENT, CONTENT[::-1], CONTENT):  # the third one may get the first one's inode
            if replacing:
                make(path.with_name("other"), content).replace(path)
            else:
                make(path, content)
            got, _ = await fetch(url, "/x")
            assert got.headers["last-modified"] == DATE
            tags.add(got.headers["etag"])
    assert len(tags) == 3


async def test_no_file_is_from_the_future(path: Path) -> None:
    os.utime(path, (2**33, 2**33))
    async with serving(Served(x=FileResponse(path))) as url:
        got, _ = await fetch(url, "/x")
    assert "last-modified" not in got.headers
    assert got.headers["etag"].startswith("W/")


# A file that changes meanwhile


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(BIG // 2)
        file.write(b"other")


def shrink(path: Path) -> None:
    os.truncate(path, BIG // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def touch(path: Path) -> None:
    os.utime(path)


def replace(path: Path) -> None:
    make(path.with_name("other"), b"other").replace(path)


def remove(path: Path) -> None:
    path.unlink()


def hide(path: Path) -> None:
    path.chmod(0)


RANGES = ["", "bytes=10-", "bytes=10-20,30-"]


@pytest.mark.parametrize("header", RANGES)
@pytest.mark.parametrize("change", [append, overwrite, shrink, empty, touch])
async def test_a_file_that_is_written_to_is_cut_short(change: Callable[[Path], None], header: str, big: Path) -> None:
    app = Served(x=FileResponse(big))
    async with serving(app) as url, exchange(url, "/x", {"Range": header} if header else (), window=1 << 16) as got:
        begun = await got.reader.readexactly(1000)
        change(big)
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await got.reader.readexactly(int(got.headers["content-length"]) - 1000)
        # What came is of the old file.
        assert set((begun + cut.value.partial)[1000:]) <= {0}
        (error,) = app.raised
        assert isinstance(error, FileChanged)
        assert error.path == str(big)
        assert descriptors(big) == 0


@pytest.mark.parametrize("header", RANGES)
@pytest.mark.parametrize("change", [replace, remove, hide])
async def test_a_file_that_is_replaced_arrives_as_it_was(
    change: Callable[[Path], None], header: str, big: Path
) -> None:
    app = Served(x=FileResponse(big))
    async with serving(app) as url, exchange(url, "/x", {"Range": header} if header else (), window=1 << 16) as got:
        await got.reader.readexactly(1000)
        change(big)
        body = await got.reader.readexactly(int(got.headers["content-length"]) - 1000)
        assert body.count(0) > BIG - 2000
    assert app.raised == []


VERSION = 8 << 20


class Versions(threading.Thread):
    """Writes versions of a file, of one byte each, in all ways, until it is over."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = make(path, bytes(VERSION))
        self.over = threading.Event()
        # Nobody can tell what is in a file that is opened during a write.
        self.writing = threading.Lock()

    def run(self) -> None:
        ways = itertools.cycle([self.overwrite, self.path.write_bytes, self.replace])
        for byte in itertools.cycle(range(1, 256)):
            # Longer than a tick of the kernel's clock, within which two versions may have the same time.
            if self.over.wait(0.02):
                return
            with self.writing:
                next(ways)(bytes([byte]) * VERSION)

    def overwrite(self, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.write(content)

    def replace(self, content: bytes) -> None:
        make(self.path.with_name("other"), content).replace(self.path)


async def test_what_a_client_takes_for_a_whole_file_is_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions, open_it = Versions(tmp_path / "x"), OpenFile.open
    whole, cut = 0, 0

    def open_between(file: OpenFile) -> None:
        with versions.writing:
            open_it(file)

    async def download(url: str) -> None:
        nonlocal whole, cut
        while whole < 10 or cut < 5:
            try:
                _, body = await fetch(url, "/x", window=1 << 16)
            except asyncio.IncompleteReadError:
                cut += 1
            else:
                assert (len(body), body.count(body[:1])) == (VERSION, VERSION)
                whole += 1

    monkeypatch.setattr(OpenFile, "open", open_between)
    async with serving(Served(x=FileResponse(versions.path))) as url:
        versions.start()
        try:
            async with asyncio.timeout(30):
                await asyncio.gather(*(download(url) for _ in range(3)))
        finally:
            versions.over.set()
            versions.join(BOUND)


async def test_a_file_that_cannot_be_read_any_more_is_cut_short(path: Path) -> None:
    server = Server()

    async def send(message: Message) -> None:
        await server.send(message)
        if message["type"] == "http.response.start":
            number = next(each for each in Path("/proc/self/fd").iterdir() if each.resolve() == path.resolve())
            # A folder takes the descriptor's place: it can be opened, and not be read.
            folder = os.open(path.parent, os.O_RDONLY)
            os.dup2(folder, int(number.name))
            os.close(folder)

    with pytest.raises(FileChanged, match=f"expected {path} to stay as it is while it is sent, but it could not be"):
        await FileResponse(path)(server.scope, server.receive, send)
    assert server.body == b""


# What is no file


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("kind", [make_fifo, make_socket, make_loop, make_nothing, Path.mkdir])
async def test_only_regular_files_are_sent(kind: Callable[[Path], None], below: bool, tmp_path: Path) -> None:
    kind(tmp_path / "x")
    response = FileResponse("x", root=tmp_path) if below else FileResponse(tmp_path / "x")
    async with serving(Served(x=response)) as url:
        got, body = await fetch(url, "/x")
    assert (got.status, body) == NOT_FOUND


async def test_a_path_that_names_no_file_is_not_found(caplog: pytest.LogCaptureFixture) -> None:
    paths = ["/dev/null", "/dev/zero", "", "a\0b", "\ud800", "a" * 5000, "/etc/passwd/x"]
    responses = {f"x{number}": FileResponse(path) for number, path in enumerate(paths)}
    async with serving(Served(**responses)) as url:
        assert {(await fetch(url, f"/{name}"))[0].status for name in responses} == {404}
    # The application has named them, so this is its mistake.
    assert caplog.text.count("expected a file to send, but got:") == len(paths)


async def test_a_root_that_is_no_folder_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Served(x=FileResponse("x", root=path), y=FileResponse("y", root=path.parent))) as url:
        assert {(await fetch(url, f"/{name}"))[0].status for name in "xy"} == {404}
    assert caplog.messages == [f"expected a folder with files to send, but there is none at {path}"]


async def test_a_file_that_becomes_a_fifo_does_not_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = files._check_regular
    checked: list[str] = []

    def swap(found: os.stat_result, name: str) -> None:
        check(found, name)
        if not checked:
            checked.append(name)
            path.unlink()
            os.mkfifo(path)

    monkeypatch.setattr(files, "_check_regular", swap)
    async with serving(Served(x=FileResponse(path))) as url:
        assert (await fetch(url, "/x"))[0].status == 404
    assert checked
    assert descriptors(path) == 0


async def test_a_file_that_may_not_be_read_is_forbidden(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> int:  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    async with serving(Served(x=FileResponse(path))) as url:
        monkeypatch.setattr(files, "_open", refuse)
        got, body = await fetch(url, "/x")
    assert (got.status, body) == (403, b'{"detail":"the server may not read this file","code":"file_unreadable"}')
    assert str(path) in caplog.text


async def test_a_server_that_cannot_open_files_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    app = Served(x=FileResponse(path))
    async with serving(app) as url:
        monkeypatch.setattr(files, "_open", refuse)
        assert (await fetch(url, "/x"))[0].status == 500
    assert isinstance(app.raised[0], OSError)


# Names from clients

SECRET = b"secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files and links, beside a secret."""
    folder = tmp_path / "public"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "public-too").mkdir()
    (tmp_path / "public-too" / "secret").write_bytes(SECRET)
    for name in ("a.txt", "sub/b.txt", "ü b.txt", "..a", "%2e", "12:30.log"):
        (folder / name).write_bytes(name.encode())
    links = {"in": "a.txt", "up": "sub/../a.txt", "here": ".", "sub/back": "../a.txt", "latest": "sub"}
    out: dict[str, str | Path] = {
        "out": "../secret",
        "parent": "..",
        "top": "/",
        "sibling": "../public-too",
        "absolute": tmp_path / "secret",
    }
    for name, target in {**links, **out}.items():
        (folder / name).symlink_to(target)
    return folder


def sender(folder: Path) -> Starlette:
    async def send(request: Request) -> Response:
        return FileResponse(request.path_params["name"], root=folder)

    return Starlette(routes=[Route("/{name:path}", send)])


NAMES = {
    "a.txt": "a.txt",
    "sub/b.txt": "sub/b.txt",
    "%C3%BC%20b.txt": "ü b.txt",
    "..a": "..a",
    "%252e": "%2e",
    "12:30.log": "12:30.log",
    "in": "a.txt",
    "up": "a.txt",
    "sub/back": "a.txt",
    "here/sub/b.txt": "sub/b.txt",
    "latest/b.txt": "sub/b.txt",
    "latest/back": "a.txt",
    "parent/public/a.txt": "a.txt",  # out of the folder, and in again
}


async def test_a_client_names_files_of_a_folder(folder: Path) -> None:
    async with serving(sender(folder)) as url:
        answers = {target: (await fetch(url, f"/{target}"))[1] for target in NAMES}
    assert answers == {target: name.encode() for target, name in NAMES.items()}


TRAVERSALS = [
    "",
    ".",
    "..",
    "../secret",
    "sub/../../secret",
    "sub/../a.txt",
    "./a.txt",
    "sub/",
    "sub//b.txt",
    "a.txt/",
    "a.txt/.",
    "../public/a.txt",
    "../public-too/secret",
    "%2e%2e/secret",
    "%2E%2E%2Fsecret",
    "..%2fsecret",
    "%252e%252e/secret",
    "..%c0%afsecret",
    "/etc/passwd",
    "%2Fetc%2Fpasswd",
    "//etc/passwd",
    "..\\secret",
    "..%5Csecret",
    "sub%5C..%5C..%5Csecret",
    "%5C%5Chost%5Cshare",
    "C:/secret",
    "C:secret",
    "sub/c:b.txt",
    "%00",
    "a.txt%00.png",
    "../secret%00",
    "out",
    "parent/secret",
    "top/etc/passwd",
    "sibling/secret",
    "absolute",
    "here/out",
    "sub",
    "here",
    "a" * 300,
    "~/a.txt",
    "$HOME",
    "%FF",
]


async def test_no_name_leads_out_of_its_folder(folder: Path) -> None:
    async with serving(sender(folder)) as url:
        answers = {target: await fetch(url, f"/{target}") for target in TRAVERSALS}
    assert {target: (got.status, body) for target, (got, body) in answers.items()} == dict.fromkeys(
        TRAVERSALS, NOT_FOUND
    )


async def test_names_mean_the_same_without_descriptors_of_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    expected = {"a.txt": 200, "sub/back": 200, "../secret": 404, "out": 404, "parent/secret": 404, "sub": 404}
    async with serving(sender(folder)) as url:
        monkeypatch.setattr(os, "supports_dir_fd", set())
        assert {target: (await fetch(url, f"/{target}"))[0].status for target in expected} == expected


@pytest.mark.parametrize("target", ["sub/secret", "secret"])
async def test_a_link_that_appears_meanwhile_is_not_followed(
    target: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / target).write_bytes(b"harmless")
    resolve = os.path.realpath

    def swap(path: Any, **options: Any) -> str:
        resolved: str = resolve(path, **options)
        if resolved.endswith("secret"):
            place = folder / target.partition("/")[0]
            place.rename(folder / "moved")
            place.symlink_to("../public-too" if target == "sub/secret" else "../secret")
        return resolved

    monkeypatch.setattr(os.path, "realpath", swap)
    async with serving(sender(folder)) as url:
        got, body = await fetch(url, f"/{target}")
    assert (got.status, SECRET in body) == (404, False)


async def test_a_folder_may_be_a_link_and_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "link").symlink_to("public")
    monkeypatch.chdir(folder.parent)
    async with serving(Served(x=FileResponse("sub/b.txt", root="link"))) as url:
        assert (await fetch(url, "/x"))[1] == b"sub/b.txt"


# Clients who leave, or are slow


@pytest.mark.parametrize("moment", ["at once", "in the body"])
async def test_a_client_that_leaves_takes_the_descriptor_with_it(moment: str, big: Path) -> None:
    done = asyncio.Event()
    app = Served(x=FileResponse(big, background=BackgroundTask(done.set)))
    async with serving(app) as url:
        async with exchange(url, "/x", head=moment != "at once") as got:
            if moment == "in the body":
                await got.reader.readexactly(100_000)
                assert descriptors(big) == 1
        async with asyncio.timeout(BOUND):
            await app.left.wait()
        assert descriptors(big) == 0
        assert done.is_set()
    assert app.raised == []


async def test_a_server_may_tell_by_an_error_that_the_client_has_left(big: Path) -> None:
    app, server = Served(x=FileResponse(big)), Server()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError
        await server.send(message)

    await app(server.scope, server.receive, send)
    assert descriptors(big) == 0


async def test_the_background_task_runs_after_every_answer(path: Path) -> None:
    ran: asyncio.Queue[str] = asyncio.Queue()

    def respond(each: Path) -> FileResponse:
        return FileResponse(each, background=BackgroundTask(ran.put, each.name))

    app = Served(x=respond(path), missing=respond(path.with_name("missing")))
    headers = [{}, {"Range": f"bytes={N}-"}, {"If-None-Match": "*"}, {"If-Match": '"other"'}]
    async with serving(app) as url, asyncio.timeout(BOUND):
        for each in headers:
            await fetch(url, "/x", each)
            assert await ran.get() == path.name
        await fetch(url, "/missing")
        assert await ran.get() == "missing"


async def test_a_thread_is_waited_for_when_its_caller_is_cancelled() -> None:
    started, released = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        released.wait(BOUND)
        raise ValueError("nobody asks for this any more")

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait, BOUND)
    task.cancel()
    await turns()
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_that_has_no_thread_yet_is_never_made() -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens, released = 1, threading.Event()
    first = asyncio.create_task(in_thread(released.wait, BOUND))
    second = asyncio.create_task(in_thread(pytest.fail))
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    released.set()
    assert await first


async def test_a_call_that_is_cancelled_before_its_thread_begins_is_never_made() -> None:
    call: Future[None] = Future()
    call.cancel()
    _run(call, pytest.fail, ())


async def test_a_client_who_takes_nothing_holds_a_few_chunks(big: Path) -> None:
    """In bytes that Python has allocated, for clients over real connections whose buffers are full."""
    held, app = 0, FileResponse(big)

    async def holding(scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Message) -> None:
            nonlocal held
            held += 1
            await send(message)
            held -= 1

        await app(scope, receive, counted)

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(holding))
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(20):
            # A stream of asyncio would read ahead.
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((urlsplit(url).hostname, urlsplit(url).port))
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(BOUND):
            while True:  # until the kernel takes no more, for which there is no event
                before = tracemalloc.get_traced_memory()[0]
                await asyncio.sleep(0.05)
                if held == 20 and tracemalloc.get_traced_memory()[0] == before:
                    break
        # uvicorn's buffer takes up to two chunks before it is full.
        assert before < 20 * (3 * CHUNK_SIZE + (32 << 10))


async def test_a_chunk_has_a_bound(big: Path) -> None:
    server = Server()
    await FileResponse(big, chunk_size=1 << 20)(server.scope, server.receive, server.send)
    assert [len(each.get("body", b"")) for each in server.messages] == [0, *[1 << 20] * 16, 0]
    assert server.whole
    with pytest.raises(ValueError, match=r"^expected chunk_size to be at least 1, but got 0$"):
        FileResponse(big, chunk_size=0)


async def test_a_large_file_takes_little_memory(big: Path) -> None:
    """Of server and client together, while all of the file passes through both."""
    async with serving(Served(x=FileResponse(big))) as url, exchange(url, "/x", window=1 << 16) as got:
        tracemalloc.start()
        try:
            received = 0
            while received < BIG:
                received += len(await got.reader.read(1 << 20))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20


async def test_others_run_while_a_file_is_sent(big: Path) -> None:
    """Even if no read and no send of it ever suspends."""
    server, turn = Server(), 0

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    await FileResponse(big)(server.scope, server.receive, server.send)
    other.cancel()
    assert turn >= BIG // CHUNK_SIZE


def blocking(*_: object) -> int:
    raise BlockingIOError


def unsupported(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.mark.parametrize(
    ("name", "value", "threads"),
    [
        (None, None, 0),
        # The bytes are on the disk; the file system cannot tell; the platform cannot.
        ("os.preadv", blocking, 4),
        ("os.preadv", unsupported, 4),
        ("tailrace.asgi.files._NOWAIT", None, 4),
    ],
)
async def test_threads_read_what_may_take_long(
    name: str | None, value: Any, threads: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = OpenFile.read

    def counted(file: OpenFile, offset: int, size: int) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        reads.append(offset)
        return read(file, offset, size)

    monkeypatch.setattr(OpenFile, "read", counted)
    if name is not None:
        monkeypatch.setattr(name, value)
    async with serving(Served(x=FileResponse(path))) as url:
        assert (await fetch(url, "/x"))[1] == CONTENT
    assert len(reads) == threads

"""FileResponse: a response that sends a file, whole or in ranges, and never parts of two versions of it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import logging
import mimetypes
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from email.utils import formatdate
from pathlib import PureWindowsPath
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import quote

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import FileChanged, StreamError
from .disconnect import Disconnected, Work
from .ranges import Body, Range, Validators, content_range, multipart, parse_ranges
from .reply import refusal, refusal_of

T = TypeVar("T")
PathLike: TypeAlias = str | os.PathLike[str]

CHUNK_SIZE = 64 << 10
"""The bytes to read at once. A client who reads nothing holds the next chunk, and those in the server's buffer."""

SETTLED_AFTER = 2 * 10**9
"""The nanoseconds within which two changes of a file may have the same time. FAT has the coarsest clock."""

_OF_A_BODY = {b"content-disposition", b"content-encoding", b"content-length", b"content-type"}

logger = logging.getLogger("tailrace")


class FileResponse(Response):
    """Send a file in chunks, with constant memory.

    It takes the arguments of Starlette's FileResponse by name, except `stat_result`. It answers Range, If-Range and the
    other conditions of a GET, and HEAD. A file that is missing, or that is not a regular file, gets 404. One that the
    process may not read gets 403.

    The file is opened once, and its headers and bytes come from that one descriptor. If the file is replaced meanwhile,
    the client gets all of the old one. If it is written to, the response is cut short, so that the client sees an
    incomplete transfer, and FileChanged is raised for the server's log.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        root: PathLike | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        filename: str | None = None,
        content_disposition_type: Literal["attachment", "inline"] = "attachment",
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        """Describe the response. The file is opened when it is sent.

        - `root`: the folder that the file must be in. With it, `path` may come from a client: its parts are separated
          by `/`, and whatever leads out of the folder gets 404.
        - `headers`: further headers. An `ETag` or `Last-Modified` among them replaces the file's own.
        - `media_type`: by default, it follows from the name.
        - `background`: runs at the end, even if the client has left or the file was refused.
        - `filename`: the name under which the client saves the file. Any characters are allowed.
        - `content_disposition_type`: whether a client shows or saves a file with a `filename`.
        - `chunk_size`: the most bytes to read at once.
        """
        if chunk_size < 1:
            raise ValueError(f"expected chunk_size to be at least 1, but got {chunk_size}")
        self.path = path
        self.root = root
        self.status_code = status_code
        self.media_type = media_type or guess_media_type(filename or os.fspath(path))
        self.background = background
        self.chunk_size = chunk_size
        self.init_headers(headers)
        self.headers.setdefault("accept-ranges", "bytes")
        if filename is not None:
            self.headers.setdefault("content-disposition", content_disposition(content_disposition_type, filename))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = OpenFile(self.path, self.root)
        try:
            try:
                await in_thread(file.open)
            except StreamError as error:
                await refusal_of(error)(scope, receive, send)
            else:
                await self._serve(file, scope, receive, send)
        finally:
            file.close()
            if self.background is not None:
                await self.background()

    async def _serve(self, file: OpenFile, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Disconnected, OSError):  # servers of ASGI 2.4 raise an OSError if the client has left
            await Work(self._respond(file, scope, receive, send)).run(scope, receive)

    async def _respond(self, file: OpenFile, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers_of(file)
        answer = self._decide(file, headers, scope)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        status, body = answer
        headers["content-length"] = str(body.length)
        await send({"type": "http.response.start", "status": status, "headers": headers.raw})
        await self._send(file, Body([]) if scope["method"] == "HEAD" else body, send)

    def _decide(self, file: OpenFile, headers: MutableHeaders, scope: Scope) -> Response | tuple[int, Body]:
        """Return the status and what to send of the file, or the response that the request's conditions ask for."""
        asked, method, ranges = Headers(scope=scope), scope["method"], None
        # Conditions are for a file that is there, and ranges for GET alone (RFC 9110, sections 13.2.1 and 14.2).
        if self.status_code == 200 and method in ("GET", "HEAD"):
            # The application's own headers come before the file's.
            validators = Validators(headers["etag"], headers.get("last-modified", file.last_modified), file.settled)
            if (verdict := validators.verdict(asked)) is not None:
                return _without_file(verdict, headers)
            if method == "GET" and validators.allow_range(asked.get("if-range")):
                ranges = parse_ranges(", ".join(asked.getlist("range")), file.size)
        if ranges is None:
            return self.status_code, Body([(b"", (0, file.size))])
        if not ranges:
            return _unsatisfiable(file.size)
        return 206, _partial(ranges, file.size, headers)

    async def _send(self, file: OpenFile, body: Body, send: Send) -> None:
        for head, (start, end) in body.parts:
            if head:
                await send({"type": "http.response.body", "body": head, "more_body": True})
            while start < end:
                size = min(self.chunk_size, end - start)
                if (data := file.read_nowait(start, size)) is None:
                    data = await in_thread(file.read, start, size)
                await send({"type": "http.response.body", "body": data, "more_body": True})
                start += len(data)
                await asyncio.sleep(0)  # because neither the read nor `send` may have suspended
        await send({"type": "http.response.body", "body": body.end, "more_body": False})

    def _headers_of(self, file: OpenFile) -> MutableHeaders:
        headers = MutableHeaders(raw=list(self.raw_headers))
        headers.setdefault("etag", file.etag)
        if file.settled:  # otherwise a later version may have the same date, and a client would join the two
            headers.setdefault("last-modified", file.last_modified)
        return headers


def _partial(ranges: list[Range], size: int, headers: MutableHeaders) -> Body:
    """Return the body of a 206, and set its headers."""
    if len(ranges) == 1:
        headers["content-range"] = content_range(ranges[0], size)
        return Body([(b"", ranges[0])])
    headers["content-type"], body = multipart(ranges, size, headers["content-type"])
    return body


def _without_file(status: int, headers: MutableHeaders) -> Response:
    """Return a 304, which has all headers but those of a body, or a 412."""
    if status == 412:
        return refusal(412, "the file is another version than the request expects", "precondition_failed")
    response = Response(status_code=status)
    response.raw_headers = [each for each in headers.raw if each[0] not in _OF_A_BODY]
    return response


def _unsatisfiable(size: int) -> Response:
    response = refusal(416, f"expected a range within the {size} bytes of the file", "range_not_satisfiable")
    response.headers["content-range"] = f"bytes */{size}"
    return response


def guess_media_type(name: str) -> str:
    """Return the media type of a file, by its name."""
    media_type, encoding = mimetypes.guess_type(name)
    if encoding is not None:  # the file is an archive, whatever is in it
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    return media_type or "application/octet-stream"


def content_disposition(kind: str, filename: str) -> str:
    """Return the header that names a download (RFC 6266), with a name in ASCII for clients that know nothing else."""
    # Separators and control characters are no part of a name. Some of the latter turn text around, so that a program
    # looks like a picture. A surrogate stands for a byte that is not a character.
    name = re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069/\\]", "_", filename)
    name = re.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name)
    # Some clients decode `%` even here.
    plain = re.sub(r'[^ -~]|["%]', "_", name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+^`|')}"


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a function in a worker thread. Cancelling this still waits for the thread."""
    call: Future[T] = Future()
    try:
        await anyio.to_thread.run_sync(_run, call, function, args)
    except asyncio.CancelledError:
        if not call.cancel():  # it has begun, and may be about to use the descriptor that the caller closes next
            await asyncio.gather(asyncio.wrap_future(call), return_exceptions=True)
        raise
    return call.result()


def _run(call: Future[T], function: Callable[..., T], args: tuple[object, ...]) -> None:
    if call.set_running_or_notify_cancel():
        try:
            call.set_result(function(*args))
        except BaseException as error:  # the caller raises it
            call.set_exception(error)


class OpenFile:
    """A regular file that is read. `open` and `read` block, so call them in a worker thread."""

    def __init__(self, path: PathLike, root: PathLike | None = None) -> None:
        self._path = path
        self._root = root
        self._file: io.FileIO | None = None
        self._blocks = False  # whether every read may block

    def open(self) -> None:
        """Open the file. Raise StreamError if there is no such file, or if it may not be read."""
        try:
            descriptor = _open(os.fspath(self._path)) if self._root is None else _open_below(self._root, self._path)
        except PermissionError as error:
            logger.warning("expected to be allowed to read a file, but was not: %s", error)
            raise StreamError("the server may not read this file", code="file_unreadable", status=403) from error
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in _ABSENT:
                raise
            if self._root is None:  # otherwise the client has named it
                logger.warning("expected a file to send, but got: %s", error)
            elif not os.path.isdir(self._root):
                logger.warning("expected a folder with files to send, but there is none at %s", self._root)
            raise StreamError("there is no such file", code="file_not_found", status=404) from error
        self._file = io.FileIO(descriptor)
        self._stat = os.fstat(descriptor)
        self.size = self._stat.st_size
        now = time.time_ns()
        # No file is from the future (RFC 9110, section 8.8.2.1).
        self.last_modified = formatdate(min(self._stat.st_mtime_ns, now) // 10**9, usegmt=True)
        self.settled = now - max(self._stat.st_mtime_ns, self._stat.st_ctime_ns) > SETTLED_AFTER

    @property
    def etag(self) -> str:
        """An entity tag for this version. It is weak while another version may follow within the clock's resolution.

        Then it gives way to a strong tag that is not the same, so no client keeps bytes from before the last change.
        """
        # Archives and reproducible builds set the time of modification. Nobody but the kernel sets the inode's.
        facts = f"{self._stat.st_ctime_ns}-{self._stat.st_mtime_ns}-{self._stat.st_size}-{self.settled}"
        tag = hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()
        return f'"{tag}"' if self.settled else f'W/"{tag}"'

    def read(self, offset: int, size: int) -> bytes:
        """Read at most `size` bytes. Raise FileChanged unless they are of the version that was opened."""
        assert self._file is not None
        try:
            self._file.seek(offset)
            return self._checked(self._file.read(size))
        except OSError as error:
            raise FileChanged(os.fspath(self._path), f"could not be read: {error.strerror}") from error

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """Read in the same way, but return None if the read would block.

        The kernel copies bytes that it has in memory in less time than a thread needs to start.
        """
        assert self._file is not None
        if _NOWAIT is None or self._blocks:
            return None
        buffer = bytearray(size)
        try:
            count = os.preadv(self._file.fileno(), [buffer], offset, _NOWAIT)
            return self._checked(bytes(memoryview(buffer)[:count]))
        except OSError as error:
            # Not all file systems can. `read` meets any other error again, and reports it.
            self._blocks = not isinstance(error, BlockingIOError)
            return None

    def _checked(self, data: bytes) -> bytes:
        assert self._file is not None
        now = os.fstat(self._file.fileno())
        # A write sets the time before the bytes, so bytes that are read before the time is looked at are the old ones.
        # The inode's time of change would not do here: it also changes if the file is replaced, which is no harm.
        if (now.st_size, now.st_mtime_ns) != (self.size, self._stat.st_mtime_ns) or not data:
            raise FileChanged(os.fspath(self._path), "was written to")
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # on Linux

# Windows has fewer of these flags. O_NONBLOCK: if a FIFO takes the file's place, opening it must not wait for a writer.
_FILE = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def _open(path: str, flags: int = _FILE, folder: int | None = None) -> int:
    """Open a regular file."""
    # Opening anything else may have effects: a FIFO's writer would start, and a tape would rewind.
    _check_regular(os.stat(path, dir_fd=folder, follow_symlinks=folder is None), path)
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        _check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, f"expected a regular file, but got {stat.filemode(found.st_mode)}", path)


def _open_below(root: PathLike, name: PathLike) -> int:
    """Open a regular file in a folder. Links are followed as long as they stay in the folder."""
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, *_parts(os.fspath(name))))
    if os.path.commonpath([base, path]) != base:
        raise FileNotFoundError(errno.ENOENT, "expected a file in the folder, but got a link out of it", path)
    if os.open not in os.supports_dir_fd:  # on Windows, where making links needs a privilege
        return _open(path)
    # `path` has no links. A link that somebody puts there now is not followed.
    *folders, last = os.path.relpath(path, base).split(os.sep)
    folder = os.open(base, _FOLDER)
    try:
        for each in folders:
            below = os.open(each, _FOLDER | _NO_LINK, dir_fd=folder)
            os.close(folder)
            folder = below
        return _open(last, _FILE | _NO_LINK, folder)
    finally:
        os.close(folder)


def _parts(name: str) -> list[str]:
    """Return the parts of a name from a client. Refuse a part that means something else to a file system."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or PureWindowsPath(part).drive for part in parts):
        raise FileNotFoundError(errno.ENOENT, "expected the name of a file in the folder", name)
    return parts

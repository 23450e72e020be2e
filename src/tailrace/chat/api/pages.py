"""The web pages: the chat, and the documentation of the API. They load everything from this server."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

PAGES = Path(__file__).parent.parent / "pages"

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)

HEADERS = {
    "Cache-Control": "no-cache",  # revalidate each time, so that a page and its modules have the same version
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# `mimetypes` reads the system's tables, where a script may be text/plain.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_pages = StaticFiles(directory=PAGES)
# The second place has what all pages of tailrace share.
_assets = StaticFiles(directory=PAGES / "assets", packages=[("tailrace", "pages")])


@router.api_route("/demo", methods=["GET", "HEAD"])
async def demo(request: Request) -> Response:
    return await _file(_pages, "demo.html", request)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    return await _file(_pages, "docs.html", request)


@router.api_route("/assets/{path:path}", methods=["GET", "HEAD"])
async def asset(path: str, request: Request) -> Response:
    return await _file(_assets, path, request)


async def _file(files: StaticFiles, path: str, request: Request) -> Response:
    """Return a file, or 304 if the client has it. Raise HTTPException if there is no such file."""
    response = await files.get_response(path, request.scope)
    response.headers.update(HEADERS)
    if response.status_code == 200:
        response.headers["Content-Type"] = MEDIA_TYPES[Path(path).suffix]
    return response

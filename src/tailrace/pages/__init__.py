"""Web pages: how they are served, what they share, and the JavaScript client."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["CLIENT", "SHARED", "PageFiles", "javascript_client"]

SHARED = Path(__file__).parent
"""The files that all pages share: a stylesheet, an icon and a module."""

CLIENT = SHARED.parent / "js"
"""The JavaScript client and the widget."""

# `mimetypes` reads the system's tables, where a script may be text/plain.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFiles(StaticFiles):
    """The files of pages that load everything from their own server. Mount it, or take single files from it."""

    def __init__(self, *folders: Path, images: str = "data:") -> None:
        """Serve the files of these folders. If several have a file of the same name, the first folder's is served.

        `images` are the sources of images besides the server itself, as Content-Security-Policy names them.
        """
        super().__init__(directory=folders[0])
        self.all_directories = list(folders)
        policy = {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": f"'self' {images}",
            "base-uri": "'none'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            # Only one place in a page may parse HTML. Browsers without Trusted Types ignore both.
            "require-trusted-types-for": "'script'",
            "trusted-types": "tailrace",
        }
        self._headers = {
            "Cache-Control": "no-cache",  # revalidate each time, so that a page and its modules have the same version
            "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in policy.items()),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or 304 if the client has it. Raise HTTPException if there is no such file of a page."""
        media_type = MEDIA_TYPES.get(Path(path).suffix)
        if media_type is None:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        if response.status_code == 200:
            response.headers["Content-Type"] = media_type
        return response


def javascript_client() -> PageFiles:
    """Return an application that serves the JavaScript client: `app.mount("/js", javascript_client())`.

    It has `tailrace.js`, and `widget.js` for forms that stream.
    """
    return PageFiles(CLIENT)

"""The web pages: the chat, and the documentation of the API. They load everything from this server."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response

from ...pages import CLIENT, SHARED, PageFiles

router = APIRouter(include_in_schema=False)

PAGES = Path(__file__).parent.parent / "pages"

_pages = PageFiles(PAGES)
_assets = PageFiles(PAGES / "assets", SHARED)
_client = PageFiles(CLIENT)


@router.api_route("/demo", methods=["GET", "HEAD"])
async def demo(request: Request) -> Response:
    return await _pages.get_response("demo.html", request.scope)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    return await _pages.get_response("docs.html", request.scope)


@router.api_route("/tailrace.js", methods=["GET", "HEAD"])
async def client(request: Request) -> Response:
    return await _pages.get_response("tailrace.js", request.scope)


@router.api_route("/js/{path:path}", methods=["GET", "HEAD"])
async def client_module(path: str, request: Request) -> Response:
    return await _client.get_response(path, request.scope)


@router.api_route("/assets/{path:path}", methods=["GET", "HEAD"])
async def asset(path: str, request: Request) -> Response:
    return await _assets.get_response(path, request.scope)

"""The FastAPI application of mission control."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from pydantic import BaseModel

from .. import Engine, FileResponse, OriginGuard, __version__
from ..pages import CLIENT, SHARED, PageFiles
from ..rooms import rooms_router
from .image import check_image, panorama_path
from .simulation import Rover
from .telemetry import EVERY, SPEED, Telemetry, telemetry_router

IMAGE_PATH = "/stream/rover-image"
CHANNEL_PATH = "/ws/comms/{team_channel}"

DESCRIPTION = """\
Follow a simulated rover on Mars: its image, its telemetry, and the channels of those who watch it. Every stream
survives the network: a client that comes back gets what it missed.
"""

PAGES = Path(__file__).parent / "pages"


class Health(BaseModel):
    """`viewers` are the readers of the telemetry in this process. `flying` is False if another process flies."""

    status: Literal["ok"]
    viewers: int
    readers: int
    flying: bool
    draining: bool


def create_app(
    *,
    image: Path | None = None,
    every: float = EVERY,
    speed: float = SPEED,
    seed: int = 1,
    streams: str = "memory://",
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Create mission control.

    - `image`: the file to serve as the rover's image. Default: the panorama, which is painted now if it is not there.
      Raise UnusableImage if it cannot be served.
    - `every`: seconds between readings.
    - `speed`: the mission's seconds in a second.
    - `seed`: another seed is another drive.
    - `streams`: where the streams live. Processes that share a `redis://` URL share the rover and the channels.
    - `origins`, `hosts`: as in OriginGuard.
    """
    image = image or panorama_path()
    app = FastAPI(
        title="tailrace rover",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load scripts from other sites
        redoc_url=None,
    )
    # The rover drives on forever, so a grace would only delay the end.
    app.state.tailrace_engine = engine = Engine(streams, shutdown_grace=0)
    app.state.telemetry = telemetry = Telemetry(engine, Rover(seed), every=every, speed=speed)
    app.include_router(telemetry_router(telemetry))
    app.include_router(image_router(image))
    app.include_router(rooms_router(CHANNEL_PATH, member=member_name, origins=origins, tags=["channels"]))
    app.include_router(service)
    app.add_middleware(OriginGuard, origins=origins, hosts=hosts)
    return app


Name = Annotated[str | None, Query(description="Your name in the channel: 1 to 32 letters, digits, spaces, . ' ’ _ -")]


async def member_name(name: Name = None) -> str | None:
    """Return the name of the member who sends a request. Without one, the member reads and talks unseen."""
    if name is None or is_name(name):
        return name
    expected = "a name of 1 to 32 letters, digits, spaces, dots, apostrophes, hyphens or underscores"
    raise HTTPException(422, f"expected {expected}, but got {name[:80]!r}")


def is_name(name: str) -> bool:
    """Tell whether a member may have a name. Letters of all scripts are letters, with the marks that belong to them."""
    return (
        0 < len(name) <= 32
        and name[0].isalnum()
        and name[-1] != " "
        and all(each.isalnum() or each in " .'’_-" or unicodedata.category(each).startswith("M") for each in name)
    )


def image_router(path: Path) -> APIRouter:
    """Serve the image."""
    router = APIRouter(tags=["image"])
    media_type = check_image(path)

    @router.head(IMAGE_PATH, include_in_schema=False)
    @router.get(IMAGE_PATH, response_class=FileResponse)
    async def rover_image() -> FileResponse:
        """Load the panorama. A download that was cut goes on by `Range`."""
        return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return router


service = APIRouter()

# The page shows what has arrived of the image.
_pages = PageFiles(PAGES, images="blob:")
_assets = PageFiles(PAGES / "assets", SHARED, CLIENT)


@service.get("/health", tags=["service"])
async def health(request: Request) -> Health:
    """Tell whether the server is healthy, and how busy it is."""
    telemetry: Telemetry = request.app.state.telemetry
    statistics = telemetry.engine.statistics()
    return Health(
        status="ok",
        viewers=(await telemetry.readings()).readers,
        readers=statistics.readers,
        flying=telemetry.flies,
        draining=statistics.draining,
    )


@service.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def dashboard(request: Request) -> Response:
    return await _pages.get_response("index.html", request.scope)


@service.api_route("/assets/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
async def asset(path: str, request: Request) -> Response:
    return await _assets.get_response(path, request.scope)

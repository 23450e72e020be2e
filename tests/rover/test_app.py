from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import tailrace
from tailrace.pages import CLIENT
from tailrace.rover import UnusableImage, create_app
from tailrace.rover.app import IMAGE_PATH, PAGES, is_name
from tailrace.rover.telemetry import PATH
from tests.rover.watching import assert_unbroken, readings, strong_tag, take, watching
from tests.serving import http_client, serving
from tests.system.servers import PATIENCE


@asynccontextmanager
async def served(image: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(image=image, **{"every": 0.02, "speed": 1_000.0, **options})
    async with serving(app) as url, http_client(url) as client:
        yield client
        app.state.tailrace_engine.drain()  # as a signal does


async def test_the_image_is_the_file(photo: Path) -> None:
    async with served(photo) as client:
        whole = await client.get(IMAGE_PATH)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "image/jpeg")
        assert whole.content == photo.read_bytes()
        head = await client.head(IMAGE_PATH)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))


async def test_a_download_that_was_cut_goes_on(photo: Path) -> None:
    async with served(photo) as client:
        etag = await strong_tag(client)
        rest = await client.get(IMAGE_PATH, headers={"Range": "bytes=1000-", "If-Range": etag})
        assert (rest.status_code, rest.content) == (206, photo.read_bytes()[1000:])
        assert rest.headers["content-range"].startswith("bytes 1000-")
        other = await client.get(IMAGE_PATH, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
        assert (other.status_code, other.content) == (200, photo.read_bytes())


async def test_an_image_that_a_client_has_is_not_sent_again(photo: Path) -> None:
    async with served(photo) as client:
        etag = (await client.head(IMAGE_PATH)).headers["etag"]
        assert (await client.get(IMAGE_PATH, headers={"If-None-Match": etag})).status_code == 304


@pytest.mark.parametrize("name", ["ada", "Żółw 1", "O’Brien", "नेहा", "你好", "R2-D2", "x" * 32])
def test_a_member_may_have_a_name_in_any_script(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", " ada", "ada ", "-x", "a/b", "<b>", "a\nb", "x" * 33, "😀"])
def test_a_name_that_would_confuse_is_none(name: str) -> None:
    assert not is_name(name)


async def test_a_refused_name_is_explained(photo: Path) -> None:
    async with served(photo) as client:
        refused = await client.get("/ws/comms/science", params={"name": "a/b"})
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith("expected a name of 1 to 32 letters")
        assert refused.json()["detail"].endswith("but got 'a/b'")


def test_an_unusable_image_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnusableImage, match="there is no such file"):
        create_app(image=tmp_path / "missing.jpg")


async def test_the_health_counts_viewers(photo: Path) -> None:
    async with served(photo) as client:
        url = str(client.base_url)
        async with watching(url) as one, watching(url) as other:
            await take(one, 1)
            await take(other, 1)
            health = (await client.get("/health")).json()
        assert health == {"status": "ok", "viewers": 2, "readers": 2, "flying": True, "draining": False}
        assert (await client.get("/health")).json()["status"] == "ok"


async def test_the_settings_reach_the_rover(photo: Path) -> None:
    async with served(photo, speed=500.0) as client, watching(str(client.base_url)) as reader:
        assert_unbroken(readings(await take(reader, 5)), 0.02 * 500)
    drives = []
    for seed in (1, 2):
        async with served(photo, seed=seed) as client, watching(str(client.base_url)) as reader:
            drives.append(readings(await take(reader, 1))[0].heading)
    assert drives[0] != drives[1]


async def test_the_dashboard_loads_only_from_this_server(photo: Path) -> None:
    async with served(photo) as client:
        page = await client.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.content == (PAGES / "index.html").read_bytes()
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert (await client.head("/")).headers["content-length"] == str(len(page.content))
        again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.headers["x-content-type-options"]) == (304, "nosniff")


async def test_there_are_no_other_files(photo: Path) -> None:
    async with served(photo) as client:
        for path in ("/assets/none.js", "/assets/..%2f..%2fapp.py", "/assets/", "/app.py", "/docs"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("asset", sorted(path.name for path in (PAGES / "assets").glob("*.*") if path.suffix))
async def test_each_file_of_the_page_has_a_media_type(asset: str, photo: Path) -> None:
    async with served(photo) as client:
        found = await client.get(f"/assets/{asset}")
        assert (found.status_code, found.content) == (200, (PAGES / "assets" / asset).read_bytes())


async def test_no_file_of_the_page_has_the_name_of_a_module_of_the_client(photo: Path) -> None:
    async with served(photo) as client:
        for module in CLIENT.glob("*.js"):
            assert (await client.get(f"/assets/{module.name}")).content == module.read_bytes()


async def test_a_page_of_another_site_cannot_reach_the_server(photo: Path) -> None:
    async with served(photo, hosts=("127.0.0.1",)) as client:
        assert (await client.get("/health", headers={"Host": "evil.example"})).status_code == 421
        posted = await client.post("/health", headers={"Origin": "https://evil.example"})
        assert (posted.status_code, posted.json()["code"]) == (403, "foreign_origin")
    async with served(photo, origins=("https://friend.example",)) as client:
        assert (await client.post("/health", headers={"Origin": "https://friend.example"})).status_code == 405


async def test_the_document_describes_readings(photo: Path) -> None:
    document = create_app(image=photo).openapi()
    assert document["info"]["version"] == tailrace.__version__
    assert "local_time" in str(document["paths"][PATH]["get"]["responses"])
    assert {PATH, IMAGE_PATH, "/health"} <= set(document["paths"])


# As the usual tutorials show it


def curl(*arguments: str) -> bytes:
    program = shutil.which("curl")
    assert program is not None
    return subprocess.run([program, "-sS", *arguments], capture_output=True, timeout=PATIENCE, check=True).stdout


async def test_curl_saves_the_image_and_goes_on_with_a_part(photo: Path, tmp_path: Path) -> None:
    saved = tmp_path / "mars.jpg"
    async with served(photo) as client:
        url = f"{client.base_url}{IMAGE_PATH}"
        saved.write_bytes(photo.read_bytes()[:1_234])
        await asyncio.to_thread(curl, "-C", "-", "-o", str(saved), url)
    assert saved.read_bytes() == photo.read_bytes()


async def test_curl_without_a_buffer_shows_readings_as_they_come(photo: Path) -> None:
    program = shutil.which("curl")
    assert program is not None
    async with served(photo) as client:
        shown = await asyncio.create_subprocess_exec(
            program, "-N", "-sS", f"{client.base_url}{PATH}", stdout=asyncio.subprocess.PIPE
        )
        assert shown.stdout is not None
        lines = [await asyncio.wait_for(shown.stdout.readline(), PATIENCE) for _ in range(6)]
        shown.terminate()
        await shown.wait()
    assert [line.split(b":")[0].strip() for line in lines] == [b"id", b"data", b""] * 2

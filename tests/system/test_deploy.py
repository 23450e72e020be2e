"""Two workers behind nginx with deploy/nginx.conf, over one Redis with deploy/redis.conf."""

from __future__ import annotations

import asyncio
import shutil
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import async_playwright
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tailrace import Outcome, read_notice
from tailrace.client import Loss, tail
from tailrace.wire.websocket import read_message
from tests.system.deployment import Site, deployed_redis, site, two_workers, working
from tests.system.servers import PATIENCE, Reader, Running

NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with deployed_redis() as client:
        yield f"redis://127.0.0.1:{client.get_connection_kwargs()['port']}"


@pytest.fixture(scope="module")
def lasting(redis: str) -> Iterator[list[Running]]:
    with two_workers(redis) as workers:
        yield workers


@pytest.fixture
async def behind(lasting: list[Running], redis: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(lasting, redis, tmp_path) as built:
        yield built


@pytest.fixture
async def mortal(redis: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose workers the test may end."""
    with two_workers(redis) as workers:
        async with site(workers, redis, tmp_path) as built:
            yield built


async def publish(client: httpx.AsyncClient, text: str) -> httpx.Response:
    answer = await client.post("/news", params={"text": text})
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return answer


async def test_events_come_one_by_one_over_http2(behind: Site) -> None:
    accepted = {"accept": "text/event-stream", "accept-encoding": "gzip"}
    async with behind.client() as client:
        await publish(client, "first")
        async with client.stream("GET", "/news", headers=accepted) as response:
            assert (response.status_code, response.http_version) == (200, "HTTP/2")
            assert "content-encoding" not in response.headers
            reader = Reader.of(response)
            while (await reader.next()).data != "first":
                pass
            for number in range(20):
                await publish(client, str(number))  # the next one is not even made before this one is read
                assert (await reader.next()).data == str(number)


async def test_a_response_that_asks_for_nothing_is_not_held_back_either(behind: Site) -> None:
    async with behind.client() as client, client.stream("GET", "/plain") as response:
        assert "x-accel-buffering" not in response.headers
        pieces = response.aiter_text()
        async with asyncio.timeout(PATIENCE):
            assert await anext(pieces) == "the news: "
            for text in ("one", "two"):
                await publish(client, text)
                assert await anext(pieces) == text


async def test_a_body_that_breaks_off_does_so_for_the_client(behind: Site) -> None:
    async with behind.client() as client, client.stream("GET", "/failing", headers=NDJSON) as response:
        reader = Reader.of(response)
        assert (await reader.next()).data == 1
        assert read_notice(await reader.next()) == Outcome("error", "empty", "no more")
        with pytest.raises(httpx.RemoteProtocolError):
            await reader.next()


async def test_a_resume_at_the_other_worker_goes_on_where_the_reader_left(behind: Site) -> None:
    async with behind.client() as client, client.stream("GET", "/numbers", headers=NDJSON) as here:
        reader = Reader.of(here)
        first = [await reader.next() for _ in range(3)]
        address = here.headers["content-location"]
        async with client.stream("GET", address, params={"after": str(first[-1].id)}, headers=NDJSON) as there:
            # nginx sends it to the worker with fewer connections.
            assert behind.worker(there) is not behind.worker(here)
            reader = Reader.of(there)
            numbers = [(await reader.next()).data for _ in range(20)]
            stopped = await client.post(f"{address}/stop")
            assert stopped.json()["state"] == "cancelled"
            *rest, end = await reader.rest()
            assert read_notice(end) == Outcome("cancelled", "stopped", "the stream was stopped")
    numbers = [frame.data for frame in first] + numbers + [frame.data for frame in rest]
    assert numbers == list(range(1, len(numbers) + 1))


READ = """
async (url) => {
    window.source = new EventSource(url);
    await new Promise(done => source.onmessage = done);
    const { nextHopProtocol } = performance.getEntriesByType('navigation')[0];
    return nextHopProtocol;
}
"""


async def test_a_worker_learns_that_a_page_reads_no_more(behind: Site) -> None:
    async with behind.client() as client, async_playwright() as playwright:
        await publish(client, "something")
        # chromium does not start with its sandbox as root.
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page(ignore_https_errors=True)
        await page.goto(f"{behind.url}/seen")
        assert await page.evaluate(READ, "/news") == "h2"
        worker = await worker_with_reader(behind)
        await page.evaluate("source.close()")  # the page stays, and so does its connection to nginx
        async with worker.client() as direct, asyncio.timeout(PATIENCE):
            while (await direct.get("/statistics")).json()["readers"]:
                pass
        assert await page.evaluate("(async () => (await fetch('/seen')).status)()") == 200
        await browser.close()


async def test_a_websocket_passes_if_its_page_is_from_here(behind: Site) -> None:
    url = behind.url.replace("https", "wss") + "/news"
    async with behind.client() as client:
        mark = uuid4().hex
        await publish(client, mark)
        async with (
            connect(url, ssl=behind.tls(), origin=behind.url) as socket,  # type: ignore[arg-type]  # a str
            asyncio.timeout(PATIENCE),
        ):
            while read_message(str(await socket.recv())).data != mark:
                pass
            await publish(client, "after it")
            assert read_message(str(await socket.recv())).data == "after it"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, ssl=behind.tls(), origin="https://elsewhere.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


async def test_the_application_sees_the_client_and_not_what_it_claims(behind: Site) -> None:
    async with behind.client() as client:
        claimed = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "ftp"}
        seen = (await client.get("/seen", headers=claimed)).json()
    assert seen == {"client": "127.0.0.1", "scheme": "https", "host": behind.url.removeprefix("https://")}


async def test_plain_http_is_sent_to_https(behind: Site) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{behind.plain_url}/news?text=a")
    assert (answer.status_code, answer.headers["location"]) == (308, "https://127.0.0.1/news?text=a")


@pytest.mark.parametrize(("size", "status"), [(1 << 20, b"200"), (3 << 20, b"413")])
async def test_a_body_that_is_too_large_is_refused(behind: Site, tmp_path: Path, size: int, status: bytes) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(size))
    # curl, because httpx sends on although it has been refused.
    options = ["--http2", "--silent", "--cacert", str(behind.certificate), "--output", str(tmp_path / "answer")]
    told = ["--write-out", "%{http_code} %{http_version}", "--data-binary", f"@{body}"]
    curl = await asyncio.create_subprocess_exec("curl", *options, *told, f"{behind.url}/news?text=a", stdout=PIPE)
    assert (await curl.communicate())[0] == status + b" 2"


@pytest.mark.parametrize(("method", "status", "count"), [("POST", 502, 1), ("GET", 200, 2)])
async def test_only_a_get_is_repeated_when_its_worker_dies(mortal: Site, method: str, status: int, count: int) -> None:
    path = f"/fatal/{uuid4().hex}"
    async with mortal.client() as client:
        assert (await client.request(method, path)).status_code == status
        # The other worker has counted, too. It answers at once, because a refused connection is no repetition.
        for number in range(count + 1, count + 5):
            answer = await client.post(path)
            assert (answer.status_code, answer.json()) == (200, number)
    assert sorted(worker.process.poll() is None for worker in mortal.workers) == [False, True]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, "farewell"), (signal.SIGKILL, "broken")])
async def test_readers_of_a_worker_that_ends_go_on_at_the_other_one(
    mortal: Site, number: signal.Signals, kind: str
) -> None:
    losses: list[Loss] = []
    async with mortal.client() as client, asyncio.timeout(3 * PATIENCE):
        cursor = (await client.get("/news")).json()["cursor"]
        following = tail(
            f"{mortal.url}/news",
            after=cursor,
            client=client,
            on_reconnect=lambda attempt, delay, loss: losses.append(loss),
        )
        async with following as events:
            await publish(client, "0")
            assert (await anext(events)).data == "0"
            worker = await worker_with_reader(mortal)
            [stays] = [each for each in mortal.workers if each is not worker]
            # Not through nginx, which may give the worker another POST while it ends, and answers 502 then.
            async with stays.client() as direct:
                worker.process.send_signal(number)
                for text in "123456789":
                    await publish(direct, text)
            assert [(await anext(events)).data for _ in range(9)] == list("123456789")
    assert [loss.kind for loss in losses] == [kind]
    assert await worker.exit_status() == -number


async def worker_with_reader(site: Site) -> Running:
    for worker in site.workers:
        async with worker.client() as direct:
            if (await direct.get("/statistics")).json()["readers"]:
                return worker
    raise AssertionError("expected a worker with a reader")


async def test_a_worker_that_is_back_gets_requests_again(mortal: Site) -> None:
    gone, stays = mortal.workers
    gone.process.terminate()
    await gone.exit_status()

    async def asked() -> Running:
        async with mortal.client() as client:  # each time: nginx closes a connection after 1,000 requests
            return mortal.worker(await publish(client, "news"))

    for _ in range(4):
        assert await asked() is stays
    with working(mortal.redis, gone.port) as back:
        mortal.workers[0] = back
        async with asyncio.timeout(PATIENCE):
            while await asked() is not back:
                pass

"""The files of the folder `deploy`, run as they are but for addresses, paths and the certificate."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotServing
from redis.retry import Retry

from tests.client.speaking import own_certificate
from tests.log.redis.redis_server import until_true
from tests.nginx import running_nginx
from tests.serving import ROOT, free_port
from tests.system.servers import PATIENCE, UVICORN, Running, running

FILES = ROOT / "deploy"
APP = "tests.system.deployed_app:app"


def filled(name: str, values: Mapping[str, str]) -> str:
    """Return a file with some of its values replaced. Each must be there."""
    text = (FILES / name).read_text()
    for shown, value in values.items():
        assert shown in text, f"expected {shown!r} in {name}"
        text = text.replace(shown, value)
    return text


@contextmanager
def deployed_redis() -> Iterator[Redis]:
    """A connection to a redis-server with deploy/redis.conf."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        port = free_port()
        file = Path(folder) / "redis.conf"
        file.write_text(filled("redis.conf", {"port 6379": f"port {port}", "/var/lib/redis": folder}))
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(["redis-server", str(file)], stdout=log, stderr=log) as server,
            Redis(port=port, socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0), protocol=2) as client,
        ):

            def serves() -> bool:
                assert server.poll() is None, (Path(folder) / "log").read_text()
                try:
                    return bool(client.ping())
                except NotServing:
                    return False

            try:
                until_true(serves, "a redis-server that serves")
                yield client
            finally:
                server.terminate()


@dataclass
class Site:
    """nginx with deploy/nginx.conf before two workers."""

    url: str
    plain_url: str
    certificate: Path
    workers: list[Running]
    redis: str

    def tls(self) -> ssl.SSLContext:
        """What trusts the certificate. Each client sets protocols of its own."""
        return ssl.create_default_context(cafile=self.certificate)

    def client(self) -> httpx.AsyncClient:
        """A client of HTTP/2."""
        return httpx.AsyncClient(base_url=self.url, http2=True, http1=False, verify=self.tls(), timeout=PATIENCE)

    def worker(self, response: httpx.Response) -> Running:
        """The worker that answered."""
        return next(each for each in self.workers if str(each.process.pid) == response.headers["x-worker"])


@contextmanager
def working(redis: str, port: int = 0) -> Iterator[Running]:
    with running(UVICORN, APP, port, REDIS_URL=redis) as worker:
        yield worker


@contextmanager
def two_workers(redis: str) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        yield [stack.enter_context(working(redis)) for _ in range(2)]


@asynccontextmanager
async def site(workers: list[Running], redis: str, folder: Path) -> AsyncIterator[Site]:
    plain, secure = free_port(), free_port()
    own_certificate(folder)
    configuration = filled(
        "nginx.conf",
        {
            "listen 80 ": f"listen 127.0.0.1:{plain} ",
            "listen 443 ": f"listen 127.0.0.1:{secure} ",
            "app1:8000": f"127.0.0.1:{workers[0].port}",
            "app2:8000": f"127.0.0.1:{workers[1].port}",
            "/etc/nginx/tls/fullchain.pem": f"{folder}/own.pem",
            "/etc/nginx/tls/privkey.pem": f"{folder}/own.pem",
            "/var/log/nginx/error.log": "stderr",
        },
    )
    async with running_nginx(configuration, secure, folder):
        yield Site(f"https://127.0.0.1:{secure}", f"http://127.0.0.1:{plain}", folder / "own.pem", workers, redis)

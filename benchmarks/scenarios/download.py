"""A large file, as fast as it goes."""

import time

from benchmarks.downloads import MEGABYTES, download, verify_download
from benchmarks.peers import FILE_LOOP, NGINX, STARLETTE_FILE, TAILRACE_FILE, Peer
from benchmarks.scenarios.base import Metric, Sample, Scenario

DOWNLOADS = 4


def measure(peer: Peer, quick: bool) -> Sample:
    count = 1 if quick else DOWNLOADS
    with peer.serve() as server:
        verify_download(server.address)  # which also warms up
        cpu, own, start = server.cpu(), time.process_time(), time.perf_counter()
        for _ in range(count):
            download(server.address)
        elapsed = time.perf_counter() - start
        return {
            "cpu_us": (server.cpu() - cpu) / (count * MEGABYTES) * 1e6,
            "rate": count * MEGABYTES / elapsed,
            "client_load": (time.process_time() - own) / elapsed * 100,
        }


DOWNLOAD = Scenario(
    name="download",
    title="Download of a large file",
    about=f"A file of {MEGABYTES} MB, downloaded {DOWNLOADS} times over one connection each, from the page cache. The "
    "loop is a StreamingResponse that reads 4 KB at a time in a thread pool, as aiofiles does. nginx lets the kernel "
    "copy by sendfile(). tailrace alone checks after each read that the file has not changed.",
    peers=(FILE_LOOP, STARLETTE_FILE, NGINX, TAILRACE_FILE),
    metrics=(
        Metric("cpu_us", "server CPU per MB", "µs", 0, plotted=True),
        Metric("rate", "megabytes per second", "MB/s", 0),
        Metric("client_load", "load client's use of its CPU", "%", 0),
    ),
    measure=measure,
    rounds=5,
    own=TAILRACE_FILE,
)

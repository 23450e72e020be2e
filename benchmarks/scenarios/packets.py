"""Packets both ways between one client and one hook, as fast as they go and one at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.exchange import PAYLOAD, Link, PostLink, SocketLink, packet
from benchmarks.peers import ECHO, ECHO_JSON, PACKETS, PACKETS_SOCKET, Peer
from benchmarks.process import Address, Server
from benchmarks.scenarios.base import Metric, Sample, Scenario

WINDOW = 256
"""The most packets in flight."""


@dataclass(frozen=True)
class Load:
    warmup: int
    packets: int
    # Sent one after the other, each after the echo of the one before.
    trips: int


FULL = Load(warmup=5_000, packets=50_000, trips=3_000)
QUICK = Load(warmup=200, packets=3_000, trips=200)


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    numbers = iter(range(1 + load.warmup + load.packets + load.trips))
    first, warmup, packets, trips = (
        [packet(next(numbers)) for _ in range(count)] for count in (1, load.warmup, load.packets, load.trips)
    )
    with peer.serve() as server, link_to(peer, server.address) as link:
        link.open(first[0])
        link.exchange(warmup, WINDOW)
        sample = watch(server, link, packets)
        sample["trips"] = load.trips / link.exchange(trips, 1)
        link.check(1 + load.warmup + load.packets + load.trips)
    return sample


def link_to(peer: Peer, address: Address) -> Link:
    if peer is PACKETS:
        return PostLink(address)
    paths = {ECHO.name: "/text", ECHO_JSON.name: "/json"}
    return SocketLink(address, paths.get(peer.name, "/stream"))


def watch(server: Server, link: Link, packets: Sequence[bytes]) -> Sample:
    cpu, own = server.cpu(), time.process_time()
    elapsed = link.exchange(packets, WINDOW)
    return {
        "cpu_us": (server.cpu() - cpu) / len(packets) * 1e6,
        "rate": len(packets) / elapsed,
        "client_load": (time.process_time() - own) / elapsed * 100,
    }


PACKETS_BOTH_WAYS = Scenario(
    name="packets",
    title="Packets both ways in one session",
    about=f"One client sends {FULL.packets:,} packets with payloads of {len(PAYLOAD % 0)} bytes, and each is answered "
    f"with its echo. At most {WINDOW} are in flight; each echo makes room for one more. Then {FULL.trips:,} follow one "
    "another, each after the echo of the one before. The first two peers are WebSockets of FastAPI that only echo: one "
    "does not parse the messages, the other reads and writes their JSON. A packet session validates each packet, "
    "drops those whose id it has seen, calls its hook with one at a time, and keeps a log to resume from. Over HTTP, "
    "packets go out in POST requests on one kept connection. Once a POST is answered, the next one takes all packets "
    "that may be sent. The echoes come in the response that opened the session.",
    peers=(ECHO, ECHO_JSON, PACKETS, PACKETS_SOCKET),
    metrics=(
        Metric("cpu_us", "server CPU per packet and its echo", "µs", 2, plotted=True),
        Metric("rate", "throughput each way", "packets/s", 0, plotted=True, more_is_better=True),
        Metric("trips", "round trips one at a time", "1/s", 0, more_is_better=True),
        Metric("client_load", "load client's use of its CPU", "%", 0),
    ),
    measure=measure,
    rounds=5,
    own=PACKETS,
)

"""From the first packet of a session to its echo."""

from benchmarks.exchange import packet
from benchmarks.peers import ECHO, PACKETS, PACKETS_SOCKET, Peer
from benchmarks.process import Address
from benchmarks.quantiles import quantile
from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.latency import FULL, QUICK
from benchmarks.scenarios.packets import link_to

REQUEST = packet(0, b"REQUEST")


def measure(peer: Peer, quick: bool) -> Sample:
    load = QUICK if quick else FULL
    with peer.serve() as server:
        for _ in range(load.warmup):
            time_to_echo(peer, server.address)
        cpu = server.cpu()
        times = [time_to_echo(peer, server.address) for _ in range(load.connections)]
        spent = server.cpu() - cpu
    return {
        "median_ms": quantile(times, 0.5) * 1e3,
        "p99_ms": quantile(times, 0.99) * 1e3,
        "cpu_us": spent / load.connections * 1e6,
    }


def time_to_echo(peer: Peer, address: Address) -> float:
    """Seconds from the request on a new connection to the first echo. The session then ends."""
    with link_to(peer, address) as link:
        return link.open(REQUEST)


PACKET_FIRST = Scenario(
    name="packet-first",
    title="Request to first packet",
    about=f"{FULL.connections} sessions, one after another, each on a new TCP connection; the clock runs from the "
    "request to the echo of the first packet. A POST brings that packet with it; a WebSocket is opened first. The hook "
    "of a packet session sends a RESULT after the echo, which ends the session.",
    peers=(ECHO, PACKETS, PACKETS_SOCKET),
    metrics=(
        Metric("median_ms", "median time to first packet", "ms", 2, plotted=True),
        Metric("p99_ms", "p99 time to first packet", "ms", 2),
        Metric("cpu_us", "server CPU per whole session", "µs", 0),
    ),
    measure=measure,
    own=PACKETS,
)

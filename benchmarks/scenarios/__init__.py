"""The scenarios, in the order of the report."""

from benchmarks.scenarios.base import Metric, Sample, Scenario
from benchmarks.scenarios.capacity import CAPACITY
from benchmarks.scenarios.chat import CHAT, CHAT_LIGHT
from benchmarks.scenarios.chat_first import CHAT_FIRST
from benchmarks.scenarios.chat_stored import CHAT_STORED
from benchmarks.scenarios.chat_workers import CHAT_WORKERS
from benchmarks.scenarios.decoding import DECODING, DECODING_JS, DECODING_JSON, DECODING_LIVE
from benchmarks.scenarios.download import DOWNLOAD
from benchmarks.scenarios.fanout import FANOUT, FANOUT_ROOM, FANOUT_ROOM_SSE, FANOUT_SECOND, FANOUT_SOCKETS
from benchmarks.scenarios.latency import LATENCY
from benchmarks.scenarios.memory import MEMORY, MEMORY_MEMBERS
from benchmarks.scenarios.paced import PACED, PACED_LIGHT
from benchmarks.scenarios.packet_first import PACKET_FIRST
from benchmarks.scenarios.packets import PACKETS_BOTH_WAYS
from benchmarks.scenarios.page import PAGE
from benchmarks.scenarios.prompt import PROMPT
from benchmarks.scenarios.reading import READING
from benchmarks.scenarios.reconnect_storm import RECONNECT_STORM
from benchmarks.scenarios.redis_cut import REDIS_CUT
from benchmarks.scenarios.redis_deliver import REDIS_DELIVER
from benchmarks.scenarios.redis_publish import REDIS_PUBLISH_1, REDIS_PUBLISH_16, REDIS_PUBLISH_256
from benchmarks.scenarios.redis_receive import REDIS_RECEIVE
from benchmarks.scenarios.rendering import RENDERING
from benchmarks.scenarios.replay import REPLAY, REPLAY_SMALL
from benchmarks.scenarios.throughput import THROUGHPUT, THROUGHPUT_NDJSON

__all__ = ["SCENARIOS", "Metric", "Sample", "Scenario"]

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        THROUGHPUT,
        THROUGHPUT_NDJSON,
        FANOUT,
        FANOUT_SOCKETS,
        FANOUT_ROOM,
        FANOUT_ROOM_SSE,
        FANOUT_SECOND,
        MEMORY,
        MEMORY_MEMBERS,
        LATENCY,
        PACED,
        PACED_LIGHT,
        REPLAY,
        REPLAY_SMALL,
        PACKETS_BOTH_WAYS,
        PACKET_FIRST,
        RECONNECT_STORM,
        CAPACITY,
        DOWNLOAD,
        REDIS_PUBLISH_1,
        REDIS_PUBLISH_16,
        REDIS_PUBLISH_256,
        REDIS_DELIVER,
        REDIS_RECEIVE,
        REDIS_CUT,
        CHAT,
        CHAT_LIGHT,
        CHAT_FIRST,
        CHAT_STORED,
        CHAT_WORKERS,
        DECODING,
        DECODING_JSON,
        DECODING_LIVE,
        DECODING_JS,
        READING,
        RENDERING,
        PAGE,
        PROMPT,
    )
}

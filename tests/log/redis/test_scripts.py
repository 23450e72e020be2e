"""The scripts on a real server, as two processes would call them. They refuse before they write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from tailrace.log.redis import scripts
from tailrace.log.redis.frames import Batch, parse_batch
from tailrace.log.redis.link import Script
from tailrace.log.redis.scripts import (
    APPEND,
    BURY,
    CLAIM,
    CREATE,
    DROP,
    END,
    LEASE,
    LOAD,
    PAGE,
    READERS,
    RELEASE,
    STOP,
    TOUCH,
    Keys,
)

from .redis_server import PATIENCE, RedisServer, redis_server

END_FRAME = b"= E 2 t2 {}"


class Stream:
    """One stream, and the frames that were published on its channels."""

    def __init__(self, server: RedisServer, name: str = "/stream") -> None:
        self.server = server
        self.keys = Keys.of("test", name)
        self.sent = 0

    def run(self, script: Script, *arguments: Any) -> Any:
        return self.server.ask("EVAL", script.source, 3, *self.keys.all, *arguments)

    def create(
        self, *, count: int = 0, size: int = 0, age: int = 0, epoch: str = "E", keep: int = 0, maker: str = ""
    ) -> Any:
        return self.run(CREATE, epoch, 1, b"print", maker, 123, count, size, age, keep)

    def append(
        self, *json: bytes, fence: Any = "", expected: str = "", known: Any = "", tag: str = "", keyed: int = 0
    ) -> Any:
        self.sent += 1
        size, rows = sum(map(len, json)), b"\n".join(json)
        return self.run(APPEND, "E", fence, known, keyed, expected, tag or f"t{self.sent}", len(json), size, rows)

    def fill(self, count: int, size: int = 2) -> Any:
        return [self.append(b"x" * size) for _ in range(count)][-1]

    @property
    def meta(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.server.ask("HGETALL", self.keys.meta)
        return found

    @property
    def batches(self) -> list[Batch]:
        entries = self.server.ask("XRANGE", self.keys.log, "-", "+")
        batches = [parse_batch(fields[b"f"]) for _, fields in entries]
        assert [entry for entry, _ in entries] == [b"%d-0" % batch.top for batch in batches]
        return batches

    @property
    def everything(self) -> tuple[Any, Any]:
        return self.meta, self.server.ask("XRANGE", self.keys.log, "-", "+")

    def expiries(self) -> list[int]:
        return [self.server.ask("PTTL", key) for key in (self.keys.meta, self.keys.log)]


@pytest.fixture
def stream(redis: RedisServer) -> Stream:
    return Stream(redis)


@pytest.fixture
def heard(stream: Stream) -> Iterator[Any]:
    """A function that returns the frames which were published since the last call."""
    client = Redis.from_url(stream.server.unix_url)
    channel = client.pubsub()  # type: ignore[no-untyped-call]
    channel.subscribe(stream.keys.log, stream.keys.meta)
    for _ in range(2):
        assert channel.get_message(timeout=PATIENCE)["type"] == "subscribe"

    def frames(count: int) -> list[bytes]:
        found = [channel.get_message(timeout=PATIENCE)["data"] for _ in range(count)]
        assert channel.get_message(timeout=0) is None
        return found

    yield frames
    channel.close()
    client.close()


# Making and finding


def test_a_stream_is_made_once(stream: Stream) -> None:
    word, meta, tag, batches = stream.create()
    assert (word, dict(zip(meta[::2], meta[1::2], strict=True)), tag, batches) == (b"ok", stream.meta, b"", [])
    before = stream.everything
    assert stream.create(epoch="other") == [b"exists", b"E"]
    assert stream.everything == before
    facts = {b"epoch": b"E", b"top": b"0", b"tag": b"-", b"passing": b"1", b"print": b"print", b"made": b"123"}
    assert facts.items() <= stream.meta.items()


def test_a_new_stream_has_nothing_of_an_earlier_one(stream: Stream) -> None:
    stream.create()
    stream.fill(3)
    stream.server.ask("DEL", stream.keys.meta)
    stream.create()
    assert stream.append(b"1")[:2] == [b"ok", b"1"]
    assert [batch.top for batch in stream.batches] == [1]


def test_the_keys_expire_together(stream: Stream) -> None:
    stream.create(keep=60_000)
    stream.append(b"1")
    meta, log = stream.expiries()
    assert 0 < log <= meta <= 60_000
    stream.run(TOUCH, "E", 90_000)
    assert all(60_000 < left <= 90_000 for left in stream.expiries())
    stream.run(TOUCH, "E", 0)
    assert stream.expiries() == [-1, -1]


@pytest.mark.parametrize("name", ["/a/b", "}", "/a}b", "{", "{}", "/ü %", "/%7D"])
def test_the_keys_have_one_hash_tag(name: str) -> None:
    keys = Keys.of("test", name)
    for key in keys.all:
        start = key.index("{")
        assert key[start + 1 : key.index("}", start)] == keys.log[len("test:{") : -1] != ""


def test_names_have_keys_of_their_own() -> None:
    names = ["/a", "/a}", "/a{", "/a%7D", "/a%257D"]
    assert len({Keys.of("test", name) for name in names}) == len(names)


# Appending


def test_an_append_gives_offsets_and_publishes_its_frame(stream: Stream, heard: Any) -> None:
    stream.create()
    assert stream.append(b"1", b"22") == [b"ok", b"2", b"-", b"3", b"0", b"0"]
    assert stream.append(b"3") == [b"ok", b"3", b"t1", b"4", b"0", b"0"]
    frames = [b"+ E 2 2 t1 - 3 0\n1\n22", b"+ E 3 1 t2 t1 4 0\n3"]
    assert heard(2) == frames
    assert stream.batches == [parse_batch(frame) for frame in frames]


def test_a_second_try_whose_first_ran_writes_nothing(stream: Stream) -> None:
    stream.create()
    stream.append(b"1")
    first = stream.append(b"2", b"3", tag="mine")
    stream.fill(200)
    before = stream.everything
    again = stream.append(b"2", b"3", tag="mine", known=1)
    assert again[0] == b"ok"
    stored = parse_batch(again[1])
    assert (stored.top, stored.prev, stored.json) == (3, b"t1", [b"2", b"3"])
    assert first[1:3] == [b"3", b"t1"]
    assert stream.everything == before


def test_a_second_try_is_found_even_after_the_end(stream: Stream) -> None:
    stream.create()
    stream.append(b"1", tag="mine")
    stream.run(END, "E", "", "", "{}", 0)
    word, frame = stream.append(b"1", tag="mine", known=0)
    assert (word, parse_batch(frame).top) == (b"ok", 1)


def test_a_second_try_whose_first_did_not_run_writes(stream: Stream) -> None:
    stream.create()
    stream.fill(64)
    assert stream.append(b"1", tag="mine", known=0)[:2] == [b"ok", b"65"]


def test_a_key_is_known_as_long_as_its_batch(stream: Stream) -> None:
    def tags() -> int:
        return int(stream.server.ask("ZCARD", stream.keys.tags))

    stream.create(count=8, keep=60_000)
    for number in range(100):
        stream.append(b"%d" % number, b"", tag=f"key{number}", keyed=1)
        for earlier in range(max(number - 3, 0), number + 1):
            word, frame = stream.append(b"other", tag=f"key{earlier}", keyed=1)
            batch = parse_batch(frame)
            assert (word, batch.top, batch.json) == (b"ok", 2 * earlier + 2, [b"%d" % earlier, b""])
        assert tags() <= 5
    assert stream.append(b"again", tag="key0", keyed=1)[1] == b"201"
    assert 0 < stream.server.ask("PTTL", stream.keys.tags) <= 60_000
    stream.fill(20)
    assert tags() == 0


def test_no_key_is_known_of_another_stream_of_the_name(stream: Stream) -> None:
    stream.create()
    stream.append(b"1", tag="key", keyed=1)
    stream.run(TOUCH, "E", 60_000)
    assert 0 < stream.server.ask("PTTL", stream.keys.tags) <= 60_000
    stream.run(DROP, "E")
    assert stream.server.ask("EXISTS", *stream.keys.all) == 0
    stream.create()
    stream.append(b"1", tag="key", keyed=1)
    stream.server.ask("DEL", stream.keys.meta)
    stream.create()
    assert stream.append(b"2", b"3", tag="key", keyed=1)[1] == b"2"


def test_a_key_whose_batch_the_server_has_lost_is_not_known(stream: Stream) -> None:
    stream.create()
    stream.append(b"1", tag="key", keyed=1)
    stream.server.ask("DEL", stream.keys.log)
    assert stream.append(b"2", tag="key", keyed=1)[1] == b"2"
    assert parse_batch(stream.append(b"3", tag="key", keyed=1)[1]).json == [b"2"]


REFUSED = {
    "gone": (APPEND, ["other", "", "", 0, "", "t", 1, 1, b"1"], [b"gone"]),
    "fenced": (APPEND, ["E", "", "", 0, "", "t", 1, 1, b"1"], [b"fenced", b"1"]),
    "fenced by another": (APPEND, ["E", 2, "", 0, "", "t", 1, 1, b"1"], [b"fenced", b"1"]),
    "diverged": (APPEND, ["E", 1, "", 0, "t1", "t", 1, 1, b"1"], [b"diverged", b"2", b"t2"]),
    "end of another": (END, ["other", "", "", "{}", 0], [b"gone"]),
    "end by another": (END, ["E", 2, "", "{}", 0], [b"fenced", b"1"]),
    "end after a gap": (END, ["E", 1, "t1", "{}", 0], [b"diverged", b"2", b"t2"]),
    "lease of another": (LEASE, ["other", "p", 1], [b"gone"]),
    "second lease": (LEASE, ["E", "q", 1], [b"fenced", b"1"]),
    "release of another": (RELEASE, ["other", 1], [b"gone"]),
    "release by another": (RELEASE, ["E", 2], [b"fenced", b"1"]),
    "stop of another": (STOP, ["other"], [b"gone"]),
    "readers of another": (READERS, ["other", "p", 1, 0], [b"gone"]),
    "claim of another": (CLAIM, ["other", "", "a"], [b"gone"]),
    "touch of another": (TOUCH, ["other", 1], [b"gone"]),
    "drop of another": (DROP, ["other"], [b"gone"]),
    "load of another": (LOAD, ["other", 0, 1_000], [b"gone"]),
}


@pytest.mark.parametrize(("script", "arguments", "answer"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    stream: Stream, heard: Any, script: Script, arguments: list[Any], answer: list[bytes]
) -> None:
    stream.create()
    stream.fill(2)
    stream.run(LEASE, "E", "p", 1)
    before = stream.everything
    heard(3)
    assert stream.run(script, *arguments) == answer
    assert stream.everything == before
    assert heard(0) == []


NAMED = {name: value for name, value in vars(scripts).items() if isinstance(value, Script)}


@pytest.mark.parametrize("script", NAMED.values(), ids=NAMED)
def test_nothing_is_made_where_nothing_is(stream: Stream, script: Script) -> None:
    arguments: dict[Script, list[Any]] = {
        APPEND: ["E", "", "", 0, "", "t", 1, 1, b"1"],
        LOAD: ["", 0, 9],
        PAGE: [0, 9],
        BURY: ["p", "{}", 0],
    }
    if script is not CREATE:
        assert stream.run(script, *arguments.get(script, ["E", *"123456"])) in ([b"gone"], [])
        assert stream.server.ask("KEYS", "*") == []


def test_after_the_end_nothing_is_appended(stream: Stream) -> None:
    stream.create()
    stream.fill(2)
    assert stream.run(END, "E", "", "", '{"state":"done"}', 0) == [b"ok", b"2", b"t2"]
    before = stream.everything
    ended = [b"closed", b'{"state":"done"}']
    assert stream.append(b"1") == stream.run(LEASE, "E", "p", 1) == stream.run(STOP, "E") == ended
    assert stream.run(END, "E", "", "", '{"state":"error"}', 0) == ended
    assert stream.everything == before


@pytest.mark.parametrize(("tag", "answer"), [("", b"ok"), ("-", b"ok"), ("t1", b"diverged")])
def test_a_writer_may_end_a_stream_that_knows_of_no_lease(stream: Stream, tag: str, answer: bytes) -> None:
    """The server has lost the writer's, so nobody else ends it."""
    stream.create()
    assert stream.run(END, "E", 7, tag, "{}", 0)[0] == answer


def test_a_writer_may_not_end_what_another_has_released(stream: Stream) -> None:
    stream.create()
    stream.run(LEASE, "E", "p", 1)
    stream.run(RELEASE, "E", 1)
    assert stream.run(END, "E", 7, "", "{}", 0) == [b"fenced", b"1"]


# Trimming


def test_count_is_kept_and_trimmed_by_an_eighth(stream: Stream) -> None:
    stream.create(count=16)
    assert stream.fill(18) == [b"ok", b"18", b"t17", b"36", b"0", b"0"]
    assert stream.fill(1) == [b"ok", b"19", b"t18", b"38", b"3", b"6"]
    assert [batch.top for batch in stream.batches] == list(range(4, 20))
    assert stream.batches[-1].trimmed == (3, 6)


def test_a_batch_is_trimmed_as_a_whole(stream: Stream) -> None:
    stream.create(count=4)
    stream.append(*[b"1"] * 3)
    stream.append(*[b"2"] * 3)
    assert stream.append(*[b"3"] * 3)[4] == b"3"
    assert [(batch.start, batch.top) for batch in stream.batches] == [(3, 6), (6, 9)]


def test_the_newest_batch_is_kept_however_large(stream: Stream) -> None:
    stream.create(count=2, size=4)
    stream.fill(3)
    answer = stream.append(*[b"xx"] * 20)
    assert answer == [b"ok", b"23", b"t3", b"46", b"3", b"6"]
    assert [batch.start for batch in stream.batches] == [3]


def test_size_is_kept_and_trimmed_by_an_eighth(stream: Stream) -> None:
    stream.create(size=1_000)
    for number in range(100):
        _, top, _, cum, base, floor = stream.append(b"x" * (1 + number % 40))
        kept = int(cum) - int(floor)
        assert kept == sum(len(json) for batch in stream.batches for json in batch.json)
        assert int(top) - int(base) == len(stream.batches)
        assert kept <= 1_000 + 1_000 // 8 + 40
        assert kept >= 1_000 or base == b"0"


def test_age_drops_what_is_too_old(stream: Stream) -> None:
    stream.create(age=60_000)
    stream.fill(5)
    assert stream.meta[b"base"] == b"0"
    stream.server.ask("HSET", stream.keys.meta, "age", 1)
    time.sleep(0.01)
    assert stream.append(b"new")[3:] == [b"13", b"5", b"10"]
    stream.server.ask("HSET", stream.keys.meta, "age", 60_000)
    since = int(stream.meta[b"since"])
    assert abs(since / 1000 - time.time()) < 60
    assert stream.append(b"newer")[3:] == [b"18", b"5", b"10"]
    assert int(stream.meta[b"since"]) == since


def test_trimming_by_count_keeps_the_age_of_the_oldest(stream: Stream) -> None:
    stream.create(age=60_000, count=2)
    stream.fill(3)
    assert stream.meta[b"base"] == b"1"
    assert 0 < int(stream.meta[b"since"]) <= time.time() * 1000 + 60_000


def test_a_stream_whose_entries_are_lost_goes_on_from_its_top(stream: Stream) -> None:
    stream.create(count=2, size=4, age=1)
    stream.fill(2)
    stream.server.ask("DEL", stream.keys.log)
    time.sleep(0.01)
    assert stream.append(b"1")[1] == b"3"
    assert [batch.top for batch in stream.batches] == [3]


# Loading


def load(stream: Stream, *, top: int = 0, limit: int = 1_000) -> tuple[bytes, list[int]]:
    word, meta, tag, news = stream.run(LOAD, "E", top, limit)
    assert (word, dict(zip(meta[::2], meta[1::2], strict=True))) == (b"ok", stream.meta)
    return tag, tops(news)[::-1]


def tops(entries: list[Any]) -> list[int]:
    return [parse_batch(fields[1]).top for _, fields in entries]


def test_load_answers_what_is_behind_a_place(stream: Stream) -> None:
    stream.create()
    stream.fill(5)
    assert load(stream) == (b"", [1, 2, 3, 4, 5])
    assert load(stream, top=3) == (b"t3", [4, 5])
    assert load(stream, top=5) == (b"t5", [])


def test_load_answers_only_the_newest_of_too_much(stream: Stream) -> None:
    stream.create()
    stream.fill(300)
    assert load(stream, limit=1) == (b"", [300])
    frame = len(stream.server.ask("XRANGE", stream.keys.log, 300, 300)[0][1][b"f"])
    assert load(stream, top=100, limit=99 * frame) == (b"t100", list(range(202, 301)))
    stream.fill(1)
    assert load(stream, top=1, limit=1_000_000)[1] == list(range(2, 302))


def test_a_page_begins_anywhere_and_is_bounded_in_bytes(stream: Stream) -> None:
    stream.create(count=0, size=0)
    for number in range(100):
        stream.append(b"1", b"%d" % number)
    stream.append(b"x" * 10_000)
    assert tops(stream.run(PAGE, 3, 1)) == [4]
    assert tops(stream.run(PAGE, 4, 1)) == [6]
    assert tops(stream.run(PAGE, 180, 9_000)) == list(range(182, 202, 2))
    assert tops(stream.run(PAGE, 180, 19_000)) == [*range(182, 202, 2), 201]
    assert stream.run(PAGE, 201, 9_000) == []


# Control


def test_control_is_published_with_a_growing_version(stream: Stream, heard: Any) -> None:
    stream.create()
    assert stream.run(LEASE, "E", "p", 1)[:3] == [b"ok", b"1", b"1"]
    stream.run(STOP, "E")
    stream.run(STOP, "E")
    stream.run(READERS, "E", "p", 1, 0)
    stream.run(READERS, "E", "p", 1, 0)
    stream.run(READERS, "E", "q", 1, 0)
    stream.run(READERS, "E", "p", 0, 0)
    stream.run(READERS, "E", "p", 0, 0)
    stream.run(RELEASE, "E", 1)
    assert heard(6) == [
        b"! E 1 1 1 0 - ",
        b"! E 2 1 1 1 - ",
        b"! E 3 1 1 1 - p ",
        b"! E 4 1 1 1 - p q ",
        b"! E 5 1 1 1 - q ",
        b"! E 6 1 0 1 - q ",
    ]


def test_a_claim_takes_the_place_of_the_one_that_it_names(stream: Stream, heard: Any) -> None:
    stream.create()
    for before, claim in (("", "a"), ("", "b"), ("", "a"), ("a", "c"), ("a", "d")):
        assert stream.run(CLAIM, "E", before, claim) == [b"ok"]
    assert heard(2) == [b"! E 1 0 0 0 a ", b"! E 2 0 0 0 c "]
    assert stream.run(LEASE, "E", "p", 1)[-2:] == [b"c", b""]


def test_each_lease_has_the_next_fence(stream: Stream) -> None:
    stream.create()
    assert stream.run(LEASE, "E", "p", 1)[1] == b"1"
    assert stream.run(LEASE, "E", "p", 1)[1] == b"2", "expected the process to have it again, whose answer was lost"
    stream.run(RELEASE, "E", 2)
    assert stream.run(LEASE, "E", "q", 1) == [b"ok", b"3", b"4", b"0", b"-", b"0", b"", b""]


def test_a_stop_before_the_first_lease_is_for_its_writer(stream: Stream) -> None:
    stream.create()
    stream.run(STOP, "E")
    assert stream.run(LEASE, "E", "p", 1)[5] == b"1"
    stream.run(RELEASE, "E", 1)
    assert stream.run(LEASE, "E", "p", 1)[5] == b"0"


def test_the_end_gives_the_lease_back(stream: Stream, heard: Any) -> None:
    stream.create()
    stream.fill(2)
    stream.run(LEASE, "E", "p", 1)
    heard(3)
    stream.run(END, "E", 1, "t2", "{}", 60_000)
    assert heard(2) == [END_FRAME, b"! E 2 1 0 0 - "]
    assert all(0 < left <= 60_000 for left in stream.expiries())


def test_the_dead_are_removed_and_their_streams_end(stream: Stream, heard: Any) -> None:
    stream.create()
    stream.fill(2)
    stream.run(LEASE, "E", "p", 1)
    stream.run(READERS, "E", "p", 1, 0)
    heard(4)
    assert stream.run(BURY, "q", "{}", 60_000) == [b"ok"]
    assert heard(0) == []
    for _ in range(2):
        assert stream.run(BURY, "p", "{}", 60_000) == [b"ok"]
    assert heard(2) == [END_FRAME, b"! E 3 1 0 0 - "]
    assert stream.meta[b"out"] == b"{}"
    assert all(0 < left <= 60_000 for left in stream.expiries())


def test_a_stream_ends_if_its_maker_dies_before_it_is_written(stream: Stream, heard: Any) -> None:
    stream.create(maker="p")
    assert stream.run(BURY, "q", "{}", 60_000) == [b"ok"]
    assert heard(0) == []
    for _ in range(2):
        assert stream.run(BURY, "p", "{}", 60_000) == [b"ok"]
    assert heard(2) == [b"= E 0 - {}", b"! E 1 0 0 0 - "]
    assert stream.meta[b"out"] == b"{}"


@pytest.mark.parametrize("begun", ["leased", "appended"])
def test_a_stream_that_others_write_outlives_its_maker(stream: Stream, begun: str) -> None:
    stream.create(maker="p")
    if begun == "leased":
        stream.run(LEASE, "E", "q", 1)
        stream.run(RELEASE, "E", 1)
    else:
        stream.append(b"1")
    stream.run(BURY, "p", "{}", 60_000)
    assert stream.meta[b"out"] == b""


def test_a_dead_reader_is_removed_alone(stream: Stream, heard: Any) -> None:
    stream.create()
    stream.run(LEASE, "E", "p", 1)
    stream.run(READERS, "E", "q", 1, 0)
    heard(2)
    stream.run(BURY, "q", "{}", 60_000)
    assert heard(1) == [b"! E 3 1 1 0 - "]
    assert stream.meta[b"out"] == b""


def test_a_drop_leaves_nothing_and_says_so(stream: Stream, heard: Any) -> None:
    stream.create()
    stream.append(b"1")
    heard(1)
    stream.run(DROP, "E")
    assert heard(1) == [b"x E"]
    assert stream.server.ask("KEYS", "*") == []


# Memory


@pytest.fixture(scope="module")
def full() -> Iterator[RedisServer]:
    with redis_server("--maxmemory-policy", "noeviction") as server:
        yield server


WRITES: dict[str, tuple[Script, list[Any]]] = {
    "append": (APPEND, ["E", 1, "", 0, "", "t", 1, 1, b"1"]),
    "end": (END, ["E", 1, "", "{}", 0]),
    "lease": (LEASE, ["E", "p", 1]),
    "release": (RELEASE, ["E", 1]),
    "stop": (STOP, ["E"]),
    "readers": (READERS, ["E", "p", 1, 0]),
    "claim": (CLAIM, ["E", "", "a"]),
    "bury": (BURY, ["p", "{}", 1]),
}


@pytest.mark.parametrize(("script", "arguments"), WRITES.values(), ids=WRITES)
def test_a_full_server_refuses_before_anything_is_written(
    full: RedisServer, script: Script, arguments: list[Any]
) -> None:
    full.ask("CONFIG", "SET", "maxmemory", 0)
    full.ask("FLUSHALL")
    stream = Stream(full)
    stream.create(count=1)
    stream.fill(2)
    stream.run(LEASE, "E", "p", 1)
    before = stream.everything
    full.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        stream.run(script, *arguments)
    assert stream.everything == before
    full.ask("CONFIG", "SET", "maxmemory", 0)
    assert stream.run(script, *arguments)[0] == b"ok"


def test_a_full_server_makes_no_stream(full: RedisServer) -> None:
    full.ask("FLUSHALL")
    full.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        Stream(full).create()
    assert full.ask("KEYS", "*") == []

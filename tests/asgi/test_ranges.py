"""Range headers and conditions without a server. What a client gets is in test_files.py."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from tailrace.asgi.ranges import MAX_RANGES, Range, Validators, multipart, parse_ranges

SIZE = 10


def specs(count: int) -> str:
    return "bytes=" + ",".join(f"{2 * each}-{2 * each}" for each in range(count))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", [(0, 10)]),
        ("bytes=0-0", [(0, 1)]),
        ("bytes=9-", [(9, 10)]),
        ("bytes=3-5", [(3, 6)]),
        ("bytes=3-1000", [(3, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-1000", [(0, 10)]),
        (f"bytes=0-{'9' * 100}", [(0, 10)]),
        ("bytes=00000000000000000000000-1", [(0, 2)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes= 1-2 ,\t5-6", [(1, 3), (5, 7)]),
        ("bytes=,1-2,,", [(1, 3)]),
        # In the order in which they are asked for.
        ("bytes=7-8,0-1", [(7, 9), (0, 2)]),
        # What overlaps or touches is sent once.
        ("bytes=0-3,2-5", [(0, 6)]),
        ("bytes=0-3,4-5", [(0, 6)]),
        ("bytes=0-9,3-4", [(0, 10)]),
        ("bytes=8-8,4-5,0-1,5-6", [(8, 9), (4, 7), (0, 2)]),
        ("bytes=0-,0-,0-", [(0, 10)]),
        # A range that the file lacks costs the others nothing.
        ("bytes=20-30,1-2", [(1, 3)]),
        ("bytes=-0,1-2", [(1, 3)]),
        ("bytes=10-", []),
        ("bytes=10-20,30-", []),
        ("bytes=-0", []),
        (specs(MAX_RANGES), [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]),
        (specs(MAX_RANGES + 1), None),
    ],
)
def test_a_range_header_names_ranges_of_the_file(header: str, expected: list[Range] | None) -> None:
    assert parse_ranges(header, SIZE) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=5-3,0-1",
        "bytes=0-1,x",
        "bytes=1",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=1_0-2_0",
        "bytes=0x1-2",
        "bytes=²-3",
        "bytes=٣-٤",
        f"bytes=0-{'9' * 5_000}",
        "items=0-1",
        "bytes 0-1/10",
        "bytes=0-1;2-3",
        "bytes=0-1, bytes=2-3",
    ],
)
def test_a_range_header_that_is_malformed_is_ignored(header: str) -> None:
    assert parse_ranges(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=-0", "bytes=0-0"])
def test_an_empty_file_has_no_ranges_and_is_sent_whole(header: str) -> None:
    assert parse_ranges(header, 0) is None


@given(st.text(), st.integers(0, 20))
def test_any_text_is_a_range_header(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        found = parse_ranges(header, size)
        assert found is None or all(0 <= start < end <= size for start, end in found)


def test_a_body_of_several_ranges_says_its_length() -> None:
    content_type, body = multipart([(0, 5), (7, 10)], SIZE, "text/plain")
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", content_type)
    assert boundary is not None
    data = b"0123456789"
    sent = b"".join(head + data[start:end] for head, (start, end) in body.parts) + body.end
    assert len(sent) == body.length
    between = f"--{boundary[1]}".encode()
    assert sent.split(b"\r\n" + between) == [
        b"",
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-4/10\r\n\r\n01234",
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789",
        b"--\r\n",
    ]


# Conditions

BEFORE = "Sat, 28 Nov 2026 10:00:00 GMT"
THEN = "Sat, 28 Nov 2026 10:00:01 GMT"
AFTER = "Sat, 28 Nov 2026 10:00:02 GMT"
OBSOLETE = "Saturday, 28-Nov-26 10:00:01 GMT"
ASCTIME = "Sat Nov 28 10:00:01 2026"

STRONG = Validators('"a"', THEN, settled=True)
FRESH = Validators('W/"a"', THEN, settled=False)


@pytest.mark.parametrize(
    ("asked", "strong", "fresh"),
    [
        ({}, None, None),
        # The client has a copy.
        ({"if-none-match": '"a"'}, 304, 304),
        ({"if-none-match": 'W/"a"'}, 304, 304),
        ({"if-none-match": '"b", "a"'}, 304, 304),
        ({"if-none-match": "*"}, 304, 304),
        ({"if-none-match": '"b"'}, None, None),
        ({"if-none-match": "a"}, None, None),
        ({"if-none-match": ""}, None, None),
        ({"if-none-match": '"b,\\"a"'}, None, None),
        ({"if-modified-since": THEN}, 304, 304),
        ({"if-modified-since": AFTER}, 304, 304),
        ({"if-modified-since": OBSOLETE}, 304, 304),
        ({"if-modified-since": ASCTIME}, 304, 304),
        ({"if-modified-since": "Sun Nov  1 10:00:01 2026"}, None, None),
        ({"if-modified-since": BEFORE}, None, None),
        ({"if-modified-since": "yesterday"}, None, None),
        ({"if-modified-since": ""}, None, None),
        ({"if-modified-since": THEN.removesuffix(" GMT")}, None, None),
        ({"if-modified-since": THEN.replace("GMT", "+0000")}, None, None),
        ({"if-modified-since": f"{AFTER}, {AFTER}"}, None, None),
        ({"if-modified-since": "Sat, 99 Nov 2026 10:00:00 GMT"}, None, None),
        # The tag decides, and the date is for servers that know no tags.
        ({"if-none-match": '"b"', "if-modified-since": THEN}, None, None),
        ({"if-none-match": '"a"', "if-modified-since": BEFORE}, 304, 304),
        # The client wants this version and no other.
        ({"if-match": '"a"'}, None, 412),
        ({"if-match": '"b", "a"'}, None, 412),
        ({"if-match": "*"}, None, None),
        ({"if-match": '"b"'}, 412, 412),
        ({"if-match": 'W/"a"'}, 412, 412),
        ({"if-match": "a"}, 412, 412),
        ({"if-unmodified-since": THEN}, None, None),
        ({"if-unmodified-since": BEFORE}, 412, 412),
        ({"if-unmodified-since": "yesterday"}, None, None),
        ({"if-match": '"a"', "if-unmodified-since": BEFORE}, None, 412),
        ({"if-match": '"b"', "if-none-match": '"a"'}, 412, 412),
        ({"if-match": '"a"', "if-none-match": '"a"'}, 304, 412),
    ],
)
def test_conditions_decide_before_the_file(asked: dict[str, str], strong: int | None, fresh: int | None) -> None:
    assert [each.verdict(Headers(asked)) for each in (STRONG, FRESH)] == [strong, fresh]


def test_tags_may_come_in_several_headers() -> None:
    asked = Headers(raw=[(b"if-none-match", b'"b"'), (b"if-none-match", b'"a"')])
    assert STRONG.verdict(asked) == 304


@pytest.mark.parametrize(
    ("condition", "strong", "fresh"),
    [
        (None, True, True),
        ('"a"', True, False),
        ('W/"a"', False, False),
        ('"b"', False, False),
        ('"a", "b"', False, False),
        (THEN, True, False),
        (OBSOLETE, True, False),
        (ASCTIME, True, False),
        (AFTER, False, False),
        (BEFORE, False, False),
        ("yesterday", False, False),
        ("", False, False),
    ],
)
def test_only_a_strong_validator_allows_a_range(condition: str | None, strong: bool, fresh: bool) -> None:
    assert [each.allow_range(condition) for each in (STRONG, FRESH)] == [strong, fresh]


def test_an_application_s_own_date_may_be_no_date() -> None:
    own = Validators('"a"', "once", settled=True)
    assert own.verdict(Headers({"if-modified-since": THEN})) is None
    assert not own.allow_range(THEN)


@given(st.sampled_from(["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]), st.binary())
def test_any_bytes_are_a_condition(name: str, value: bytes) -> None:
    asked: Any = Headers(raw=[(name.encode(), value)])
    assert STRONG.verdict(asked) in (None, 304, 412)
    assert STRONG.allow_range(asked[name]) in (True, False)

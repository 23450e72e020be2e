from __future__ import annotations

import json
import re

import pytest

from tests.cli.tailing.tails import Run, make_app
from tests.serving import serving

FAILURES = {
    "late": ("a\n", "the stream failed: the model is down (model_down)"),
    "early": ("", "the server refused with 401: who are you"),
    "nothing": ("", "the server refused with 404: Not Found"),
    "page": ("", "expected a stream (text/event-stream, application/x-ndjson, application/json, text/plain), but got "),
    "said?text=data:1%0Aid:s.e.1%0A%0Aevent:reset%0Aid:s.e.7%0Adata:%7B%22reason%22:%22expired%22%7D%0A%0A": (
        "1\n",
        "the stream was reset (expired); go on with --after=s.e.7",
    ),
    "said?text=event:reset%0Adata:%7B%22reason%22:%22expired%22%7D%0A%0A": ("", "the stream was reset (expired); "),
    "said?text=event:error%0Aid:s.e.1.end%0Adata:%7B%22message%22:%22%1B[2J%0Adata:no%22%7D%0A%0A": ("", ""),
}


@pytest.mark.parametrize("path", FAILURES)
async def test_a_failure_is_one_line(url: str, run: Run, path: str) -> None:
    printed, line = FAILURES[path]
    status, out, err = await run(f"{url}/{path}")
    assert (status, out, err.count("\n")) == (1, printed, 1)
    assert err.startswith(f"tailrace tail: {line}")
    assert "\x1b" not in err


async def test_refused_on_the_way_it_says_how_to_go_on(url: str, run: Run) -> None:
    line = "tailrace tail: the server refused with 403: not you; go on with --after=s.e.1\n"
    assert await run(f"{url}/once", "--quiet") == (1, "1\n", line)


async def test_what_has_gone_is_refused(url: str, run: Run) -> None:
    gone = "AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAA.3"
    status, out, err = await run(f"{url}/letters", "--after", gone)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("tailrace tail: ")


GONE = "the stream is gone; read it from its beginning, without --after"


@pytest.mark.parametrize("status", [404, 410])
async def test_of_what_has_gone_on_the_way_there_is_no_more(url: str, run: Run, status: int) -> None:
    line = f"tailrace tail: the server refused with {status}: not you; {GONE}\n"
    assert await run(f"{url}/once?status={status}", "--quiet") == (1, "1\n", line)


async def test_after_the_end_of_a_server_there_is_no_way_on(run: Run) -> None:
    async with serving(make_app()) as url:
        first = await run(f"{url}/letters", "--json", "--max", "1")
    cursor = json.loads(first.out)["id"]
    async with serving(make_app()) as url:
        told = await run(f"{url}/letters", f"--after={cursor}")
    assert told == (1, "", f"tailrace tail: the stream was reset (epoch_changed); {GONE}\n")


async def test_a_larger_event_names_the_option(url: str, run: Run) -> None:
    text = f"data:{'x' * 200}%0A%0A"
    status, out, err = await run(f"{url}/said?text={text}", "--max-bytes", "100")
    assert (status, out) == (1, "")
    said = r"tailrace tail: expected a frame of at most 100 bytes, but got at least 2\d\d; --max-bytes allows more; "
    assert re.fullmatch(rf"{said}go on with --after=s\.e\.0\n", err)
    assert (await run(f"{url}/said?text={text}", "--max-bytes", "300", "--max", "1")).status == 0


async def test_what_came_before_half_an_event_is_printed(url: str, run: Run) -> None:
    status, out, err = await run(f"{url}/half")
    assert (status, out) == (1, '{"id":"7","data":1}\n')
    assert re.fullmatch(r"tailrace tail: expected a whole line of JSON .*\n", err)


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("words", [], "Method Not Allowed; expected the method POST, but got GET"),
        (
            "letters",
            ["--data", ""],
            "Method Not Allowed; expected the method GET, but got POST",
        ),
        (
            "letters",
            ["--method", "put"],
            "Method Not Allowed; expected the method GET, but got PUT",
        ),
        ("unasked", [], "not so; the method was GET"),
    ],
)
async def test_a_refused_method_is_named(url: str, run: Run, path: str, options: list[str], said: str) -> None:
    assert await run(f"{url}/{path}", *options) == (1, "", f"tailrace tail: the server refused with 405: {said}\n")

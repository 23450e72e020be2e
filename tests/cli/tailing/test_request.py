from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.tailing.tails import Run


async def test_headers_are_sent(url: str, run: Run) -> None:
    headers = ["X-Of-Mine: a: b", "x-of-mine:c", "Cookie: d=e", "cookie: f=g", "Host: there"]
    got = await run(f"{url}/echo", *(part for header in headers for part in ("--header", header)))
    said = json.loads(got.out)
    assert (said["method"], said["x-of-mine"], said["cookie"]) == ("GET", "a: b, c", "d=e; f=g")
    assert said["host"] == "there"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "[1, 2]"], {"method": "POST", "body": "[1, 2]", "content-type": "application/json"}),
        (["--data", "[1, 2"], {"method": "POST", "body": "[1, 2", "content-type": None}),
        (["--data", "1", "--header", "Content-Type: text/x"], {"body": "1", "content-type": "text/x"}),
        (["--data", "@body", "--method", "patch"], {"method": "PATCH", "body": '{"a": 1}\n'}),
        (["--data", "-"], {"method": "POST", "body": '{"a": 1}\n', "content-type": "application/json"}),
        (["--data", ""], {"method": "POST", "body": "", "content-type": None}),
        (["--data", "[" * 100_000], {"method": "POST", "content-type": None}),
        (["--method", "POST", "--idempotency-key", "k"], {"method": "POST", "body": "", "idempotency-key": "k"}),
    ],
    ids=["json", "text", "own-type", "file", "input", "empty", "deep", "key"],
)
async def test_what_is_asked(
    url: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: dict[str, str | None],
) -> None:
    (tmp_path / "body").write_text('{"a": 1}\n')
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "body").open() as input:
        monkeypatch.setattr(sys, "stdin", input)
        said = json.loads((await run(f"{url}/echo", *options)).out)
    assert {name: said.get(name) for name in expected} == expected


async def test_a_socket_is_told_the_body(url: str, run: Run) -> None:
    assert await run(f"{url.replace('http', 'ws')}/answer", "--data", "it") == (0, "got it\n", "")


async def test_a_closed_input_has_no_body(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # which is what Python makes of a closed one
    line = "tailrace tail: cannot read --data -: the standard input is closed\n"
    assert await run(f"{url}/echo", "--data", "-") == (2, "", line)


IMPOSSIBLE = {
    "ws://a --method POST": "expected no --method for a WebSocket, but got POST",
    "ws://a --header Host:b": "expected no --header Host for a WebSocket, but got b",
    f"ws://a --data @{sys.executable}": "expected UTF-8 text as --data, which is the first message of a WebSocket",
    "http://a --data @/nowhere": "cannot read --data from /nowhere: No such file or directory",
    "http://xn--a/": "",
    "http://999.1.1.1/": "",
    "ws://a..b/": "",
}


@pytest.mark.parametrize("line", IMPOSSIBLE)
async def test_what_cannot_be_asked_is_one_line(run: Run, line: str) -> None:
    status, out, err = await run(*line.split(" "))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tailrace tail: {IMPOSSIBLE[line]}")

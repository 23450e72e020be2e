from __future__ import annotations

import shlex
from argparse import Namespace

import pytest

from tailrace.cli.commands import make_parser
from tailrace.cli.tailing.way_on import OF_THE_REQUEST, WayOn

URL, ADDRESS = "http://a/words?n=1", "http://a/words/s?n=1"
CURSOR = "-s.e.4"


def parse(*arguments: str) -> Namespace:
    return make_parser().parse_args(["tail", *arguments])


def after(token: str | None, *arguments: str, address: str | None = None) -> str | None:
    way = WayOn(parse(*arguments))
    way.note(address)
    return way.after(token)


def test_the_same_command_goes_on_with_the_cursor() -> None:
    assert after(CURSOR, URL) == f"go on with --after={CURSOR}"
    assert after(CURSOR, URL, "--json", "--header", "a: b", address=ADDRESS) == f"go on with --after={CURSOR}"
    assert after("it's 5", URL) == "go on with --after='it'\"'\"'s 5'"
    assert after(CURSOR, "ws://a/", "--data", "x") == f"go on with --after={CURSOR}"


def test_what_is_asked_once_goes_on_at_its_address() -> None:
    for once in (["--data", "{}"], ["--method", "POST"]):
        assert after(CURSOR, URL, *once, address=ADDRESS) == f"go on with: tailrace tail '{ADDRESS}' --after={CURSOR}"


@pytest.mark.parametrize(
    ("token", "arguments"),
    [(None, []), ("s.e.4.end", []), ("s.e.4.end", ["--data", "x"]), ("5", ["--data", "x"]), ("5", ["--method", "PUT"])],
)
def test_where_nothing_more_comes_there_is_no_way_on(token: str | None, arguments: list[str]) -> None:
    assert after(token, URL, *arguments) is None


def test_what_is_not_of_the_request_is_said_again() -> None:
    said = parse(
        *(URL, "--data", "{}", "--method", "post", "--idempotency-key", "k", "--after", "s.e.1"),
        *("--json", "--quiet", "--allow-gaps", "--max", "9", "--until", "the end", "--retries", "3", "--idle", "7"),
        *("--max-bytes", "99", "--header", "Accept: text/plain, */*"),
    )
    parser = said.parser
    assert {name for name in vars(said) if getattr(said, name) == parser.get_default(name)} == {"command", "parser"}
    way = WayOn(said)
    way.note(ADDRESS)
    told = way.after(CURSOR)
    assert told is not None
    again = vars(parse(*shlex.split(told.removeprefix("go on with: tailrace tail "))))
    expected = {"url": ADDRESS, "after": CURSOR, "data": None, "method": None, "idempotency_key": None}
    assert {name: again.pop(name) for name in OF_THE_REQUEST} == expected
    assert {name: value for name, value in again.items() if name not in ("command", "parser")} == {
        name: value for name, value in vars(said).items() if name not in (*OF_THE_REQUEST, "command", "parser")
    }


def test_the_defaults_are_not_said() -> None:
    told = after(CURSOR, URL, "--data", "x", "--no-reconnect", "--idle", "45", address="http://a/s")
    assert told == f"go on with: tailrace tail http://a/s --retries=0 --after={CURSOR}"


def test_what_may_be_secret_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    secret = ["--header", "Authorization: Bearer k", "--header", "content-type: text/x", "--header", "User-Agent: me"]
    told = after(CURSOR, URL, "--data", "x", *secret, address="http://a/s")
    again = f"tailrace tail http://a/s --header 'authorization: …' --header 'user-agent: me' --after={CURSOR}"
    assert told == f"go on with: {again}"
    # Who forgets to fill it in is told so.
    with pytest.raises(SystemExit, match="2"):
        parse(*shlex.split(again)[2:])
    assert "argument --header: expected 'Name: value' in ASCII, but got 'authorization: …'" in capsys.readouterr().err

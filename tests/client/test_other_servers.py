"""Servers that this project did not write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tailrace import DecodeError
from tailrace.client import ChatClient, StreamLost, Unreachable
from tailrace.client.http import HTTPClient
from tailrace.testing import Fault, Relay, relayed
from tests.client.apps import NAMES, other_app
from tests.client.drivers import Driver, everywhere
from tests.serving import serving


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with serving(other_app()) as url, relayed(url) as relay:
        yield relay


EXPECTED = {
    "/fastapi": [{"n": 1}, {"n": 2}, {"n": 3}],
    "/fastapi/items": [{"n": 0}, {"n": 1}, {"n": 2}],
    "/starlette": ["line 1\nmore", "line 2\nmore", "line 3\nmore"],
    "/lines": [{"id": 1, "data": "x", "more": True}, [2], "three", None],
}


@everywhere
@pytest.mark.parametrize("path", EXPECTED)
async def test_their_streams_are_read_and_end_with_their_responses(relay: Relay, driver: Driver, path: str) -> None:
    relay.always(Fault(piece=7))
    got = await driver.read(relay.url + path)
    assert got.data == EXPECTED[path]
    assert (got.error, got.outcome) == (None, None)


@everywhere
@pytest.mark.parametrize("path", ["/fastapi", "/starlette"])
async def test_those_that_know_ids_are_resumed_at_each_byte(
    relay: Relay, driver: Driver, shared: HTTPClient, path: str
) -> None:
    await driver.read(relay.url + path, client=shared)
    total = relay.passed
    for count in range(total - 100, total, 1 if driver.name == "async" else 7):
        relay.next(Fault(after=count))
        got = await driver.read(relay.url + path, client=shared)
        assert got.error is None
        assert got.data == EXPECTED[path]
        assert [event.id for event in got.events] == ["1", "2", "3"]


@everywhere
@pytest.mark.parametrize("path", ["/fastapi/items", "/lines"])
async def test_those_without_ids_are_not_begun_again_behind_the_readers_back(
    relay: Relay, driver: Driver, path: str
) -> None:
    await driver.read(relay.url + path)
    relay.next(Fault(after=relay.passed - 8))
    got = await driver.read(relay.url + path)
    assert isinstance(got.error, StreamLost)
    assert "no id to continue after" in str(got.error)


@everywhere
async def test_text_comes_in_pieces(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/text")
    assert "".join(got.data) == "hello world"


@everywhere
async def test_an_id_is_sent_back_in_utf_8(relay: Relay, driver: Driver) -> None:
    await driver.read(f"{relay.url}/named")
    relay.next(Fault(after=relay.passed - 40))
    got = await driver.read(f"{relay.url}/named")
    assert (got.data, got.error) == (NAMES, None)
    assert relay.accepted == 3


@everywhere
async def test_an_id_that_no_header_can_hold_is_not_gone_on_after(relay: Relay, driver: Driver) -> None:
    await driver.read(f"{relay.url}/odd")
    relay.next(Fault(after=relay.passed - 1))
    got = await driver.read(f"{relay.url}/odd")
    assert isinstance(got.error, StreamLost)
    assert "cannot be sent back" in str(got.error)
    assert (got.data, got.cursor) == ([1], "a\x01b")


@everywhere
@pytest.mark.parametrize(("path", "said"), [("/round", "redirects endlessly"), ("/away", "to an impossible address")])
async def test_a_redirection_that_leads_nowhere_is_not_followed_again(
    relay: Relay, driver: Driver, path: str, said: str
) -> None:
    got = await driver.read(relay.url + path)
    assert isinstance(got.error, StreamLost)
    assert said in str(got.error)


async def test_a_chat_server_that_redirects_nowhere_is_unreachable(relay: Relay) -> None:
    async with ChatClient(f"{relay.url}/round?") as chat:
        with pytest.raises(Unreachable, match="redirects endlessly"):
            await chat.info()


async def test_a_body_that_is_not_encoded_as_said_breaks_the_wire(relay: Relay, driver: Driver) -> None:
    with pytest.raises(DecodeError, match="Content-Encoding"):
        await driver.read(f"{relay.url}/garbled")

from __future__ import annotations

import ssl

import pytest

from tailrace.log.redis.address import Address


@pytest.mark.parametrize(
    ("url", "shown", "greeting"),
    [
        ("redis://", "localhost:6379", [("HELLO", 3)]),
        ("redis://there:7000/0", "there:7000", [("HELLO", 3)]),
        ("redis://there/2", "there:6379", [("HELLO", 3), ("SELECT", 2)]),
        ("redis://:p%40ss@there", "there:6379", [("HELLO", 3, "AUTH", "default", "p@ss")]),
        ("redis://me:secret@there", "there:6379", [("HELLO", 3, "AUTH", "me", "secret")]),
        ("redis://me@there", "there:6379", [("HELLO", 3, "AUTH", "me", "")]),
        ("redis://there?max_connections=5&socket_timeout=1", "there:6379", [("HELLO", 3)]),
        ("rediss://there", "there:6379", [("HELLO", 3)]),
        ("unix:///run/redis?db=1&password=x", "/run/redis", [("HELLO", 3, "AUTH", "default", "x"), ("SELECT", 1)]),
    ],
)
def test_a_url_says_where_the_server_is_and_how_to_greet_it(
    url: str, shown: str, greeting: list[tuple[object, ...]]
) -> None:
    address = Address(url)
    assert str(address) == shown
    assert address.greeting("") == greeting


def test_a_connection_has_a_name() -> None:
    assert Address("redis://:x@there").greeting("me") == [("HELLO", 3, "AUTH", "default", "x", "SETNAME", "me")]


@pytest.mark.parametrize(
    ("url", "verifies"),
    [
        ("redis://there", None),
        ("unix:///run/redis", None),
        ("rediss://there", ssl.CERT_REQUIRED),
        ("rediss://there?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_only_rediss_has_tls_and_verifies_by_default(url: str, verifies: ssl.VerifyMode | None) -> None:
    tls = Address(url).tls
    assert (tls and tls.verify_mode) == verifies
    assert tls is None or tls.check_hostname == (verifies == ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    "url",
    [
        "http://there",
        "there:6379",
        "redis://:secret/1@there",
        "redis://there?secret=1",
        "redis://there?db=secret",
        "rediss://there?ssl_cert_reqs=secret",
    ],
)
def test_any_other_url_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a URL like redis://") as caught:
        Address(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_database_has_a_number() -> None:
    assert Address("redis://there/").database == 0
    for url in ("redis://there/abc", "redis://there:6379/-1", "rediss://there/secret"):
        with pytest.raises(ValueError, match=r"^expected the number of a database .* something else$"):
            Address(url)


def test_certificates_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"TLS certificates that can be read, but got: .*No such file"):
        Address("rediss://there?ssl_ca_certs=/nowhere")

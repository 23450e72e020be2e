from __future__ import annotations

import re
import ssl

import pytest

from tailrace.log.redis.address import Address, Group


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


UNREADABLE = "a URL like redis://host:6379/0, but got one that redis-py cannot read"
NO_DATABASE = "the number of a database after the host, but got something else"
NO_PORT = "a number up to 65535 as the port of {}, but got {}"
NO_OPTION = "only the options db, username, password, but got {}"
NO_VALUE = "a value that the option {} can have, but got another one"
UNESCAPED = "a user and a password with %2F for /, %3F for ? and %23 for #, but got one of these characters"
NOT_SHOWN = "something else, such as a password without an @ after it"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://there", UNREADABLE),
        ("there:6379", UNREADABLE),
        ("redis://[::1", UNREADABLE),
        ("rediss://there?ssl_min_version=9", UNREADABLE),
        ("redis://there/abc", NO_DATABASE),
        ("redis://there:6379/-1", NO_DATABASE),
        ("rediss://there/secret", NO_DATABASE),
        ("redis://there:secret", NO_PORT.format("there", NOT_SHOWN)),
        ("redis://:secret", NO_PORT.format("a host", NOT_SHOWN)),
        ("redis://there:99999", NO_PORT.format("there", NOT_SHOWN)),
        ("redis://:secret@there:port", NO_PORT.format("there", "'port'")),
        ("redis://there?ssl_ca_certs=/a&db=1", NO_OPTION.format("'ssl_ca_certs'")),
        ("redis://:secret@there?db=1&so=1", NO_OPTION.format("'so'")),
        ("unix:///run/a@b?so=1", NO_OPTION.format("'so'")),
        ("redis://there?db=secret", NO_VALUE.format("db")),
        ("rediss://there?ssl_cert_reqs=secret", NO_VALUE.format("ssl_cert_reqs")),
        ("redis://:secret/1@there", UNESCAPED),
        ("redis://me:12/secret@there", UNESCAPED),
        ("redis://:secret?x=ret@there", UNESCAPED),
        ("redis://me:12?secret=1@there", UNESCAPED),
        ("redis://:secret#1@there", UNESCAPED),
    ],
)
def test_any_other_url_is_refused_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^expected {re.escape(expected)}$") as caught:
        Address(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_url_with_tls_has_the_options_of_tls() -> None:
    with pytest.raises(ValueError, match=r"password, ssl_keyfile, .*ssl_ca_certs, .*but got 'ssl_ca_cert'$"):
        Address("rediss://there?ssl_ca_cert=/a")


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_a_password_of_several_servers_is_not_shown_either(kind: str) -> None:
    for url in (":pa/secret@a/it", "me:12/secret@a/it", ":pa?secret@a", "me:12?so=secret@a"):
        with pytest.raises(ValueError, match=r"^expected .*") as caught:
            Group(f"redis+{kind}://{url}", kind, 1).addresses()
        assert str(caught.value) == f"expected {UNESCAPED}"


def test_a_database_is_0_by_default() -> None:
    assert Address("redis://there/").database == 0


def test_certificates_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"TLS certificates that can be read, but got: .*No such file"):
        Address("rediss://there?ssl_ca_certs=/nowhere")

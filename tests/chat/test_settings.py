"""What a server can be told, and where it is told that."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tailrace.chat.settings import ChatSettings, database_url

HERE = Path.cwd()


def from_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ChatSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return ChatSettings()


def test_each_field_is_a_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    told = from_environment(
        monkeypatch,
        TAILRACE_MAX_STREAMS="3",
        TAILRACE_DEMO_PACE="0.5",
        TAILRACE_API_KEYS=" key-1, ,key-2 ",
        TAILRACE_CORS_ORIGINS="https://a.example,https://b.example",
        TAILRACE_HOSTS="chat.example, other.example",
        TAILRACE_MODEL="",
        TAILRACE_UNKNOWN="nobody asks",
        TAILRACE_SESSIONS_ON_DEMAND="no",
        MAX_TURNS="1",
    )
    assert (told.max_streams, told.demo_pace, told.model) == (3, 0.5, None)
    assert [key.get_secret_value() for key in told.api_keys] == ["key-1", "key-2"]
    assert told.cors_origins == ("https://a.example", "https://b.example")
    assert told.hosts == ("chat.example", "other.example")
    assert told.max_turns == ChatSettings.model_validate({}).max_turns
    assert not told.sessions_on_demand
    assert "key-1" not in repr(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_STREAMS", "0"), ("MAX_BODY", "much"), ("DEMO_PACE", "-1"), ("DEMO_WORDS", "0"), ("LOG_FORMAT", "xml")]
    + [("LOG_CHUNKS", "few"), ("SESSIONS_ON_DEMAND", "perhaps")]
    + [("CORS_ORIGINS", origin) for origin in ("foo", "https://", "https://page.example/", "*,page.example", "null")],
)
def test_a_value_that_cannot_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name.lower()):
        from_environment(monkeypatch, **{f"TAILRACE_{name}": value})


@pytest.mark.parametrize(
    ("database", "url"),
    [
        ("chat.sqlite3", f"sqlite:///{HERE}/chat.sqlite3"),
        ("/data/a b.sqlite3", "sqlite:////data/a b.sqlite3"),
        ("~/chat.sqlite3", f"sqlite:///{Path.home()}/chat.sqlite3"),
        ("sqlite:///chat.sqlite3", "sqlite:///chat.sqlite3"),
        ("postgres://me@host/chat", "postgresql+asyncpg://me@host/chat"),
        ("postgresql://me:secret@host/chat", "postgresql+asyncpg://me:secret@host/chat"),
        ("postgresql+asyncpg://host/chat", "postgresql+asyncpg://host/chat"),
    ],
)
def test_a_database_is_a_file_or_a_url(database: str, url: str) -> None:
    assert database_url(database) == url
    assert ChatSettings.model_validate({"database": database}).database_url == url


def test_without_a_database_it_is_a_file_of_the_user() -> None:
    assert database_url(None).endswith("tailrace/chat.sqlite3")


def test_another_kind_of_database_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"got mysql://…$") as refused:
        database_url("mysql://me:secret@host/chat")
    assert "secret" not in str(refused.value)

"""What a chat server can be told, by its command line or by its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

PREFIX = "TAILRACE_"


class ChatSettings(BaseModel):
    """Each field is also the environment variable `TAILRACE_<FIELD>`; lists are separated by commas.

    Times are in seconds, sizes in bytes, lengths in characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    model: str | None = Field(None, description="`provider:name`; by default what GENAI_MODEL_ID names, else `demo`.")
    database: str | None = Field(None, description="A file or a URL; by default a file in the user's data directory.")
    log_format: Literal["auto", "rich", "json"] = Field("auto", description="`auto` is `rich` on a terminal.")
    api_keys: tuple[SecretStr, ...] = Field((), description="Who has one of these keys may chat; by default everybody.")
    cors_origins: tuple[str, ...] = Field((), description="Pages of which origins may use the server; by default none.")
    hosts: tuple[str, ...] = Field(
        (), description="Names by which browsers may call a server without keys, beside `localhost`; `*` for any."
    )

    demo_words: float = Field(4.0, gt=0, description="Words that the demo model writes at a time, on average.")
    demo_pace: float = Field(0.1, ge=0, description="How long it waits between them.")

    max_message: int = Field(32_000, gt=0, description="Length of a message.")
    max_reply: int = Field(1_000_000, gt=0, description="Length of a reply; what the model writes beyond fails it.")
    max_body: int = Field(1 << 20, gt=0, description="Size of a request's body.")
    max_sessions: int = Field(1_000_000, gt=0, description="Sessions of one owner.")
    max_turns: int = Field(5_000, gt=0, description="Turns of one session.")
    max_streams: int = Field(2_000, gt=0, description="Replies that are being written at the same time.")
    context_messages: int = Field(100, gt=0, description="Messages that the model is sent, at most.")
    context_characters: int = Field(200_000, gt=0, description="Their length together, at most.")
    model_timeout: float = Field(120.0, gt=0, description="How long the model may say nothing.")

    @field_validator("api_keys", "cors_origins", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+", origin) is None:
                raise ValueError("expected origins like https://page.example, or *")
        return value

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ChatSettings:
        """ValidationError for a value that cannot be meant; an empty one counts as none."""
        names = {f"{PREFIX}{field.upper()}": field for field in cls.model_fields}
        return cls.model_validate(
            {names[name]: value for name, value in environment.items() if value and name in names}
        )

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return database_url(self.database)


def database_url(database: str | None) -> str:
    """A file's path as SQLite's URL, `postgresql://…` with the driver that is used here; ValueError for other URLs."""
    if database is None:
        database = str(platformdirs.user_data_path("tailrace") / "chat.sqlite3")
    scheme, found, rest = database.partition("://")
    if not found:
        return f"sqlite:///{Path(database).expanduser().absolute()}"
    if scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        return f"postgresql+asyncpg://{rest}"
    if scheme == "sqlite":
        return database
    raise ValueError(f"expected a file, sqlite:///… or postgresql://… as database, but got {scheme}://…")

"""The settings of a chat server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "TAILRACE_"

Keys = Annotated[tuple[SecretStr, ...], NoDecode]
Names = Annotated[tuple[str, ...], NoDecode]
"""Names that are separated by commas in the environment, where pydantic-settings would expect JSON."""


class ChatSettings(BaseSettings):
    """The settings of a chat server. Each field is also the environment variable `TAILRACE_<FIELD>`.

    Separate the items of a list by commas. An empty variable counts as unset. Times are in seconds, sizes in bytes, and
    lengths in characters. A value out of range raises ValidationError.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", str_strip_whitespace=True
    )

    model: str | None = Field(
        default=None, description="`provider:name`. Default: the model that GENAI_MODEL_ID names, else `demo`."
    )
    database: str | None = Field(
        default=None, description="A file or a URL. Default: a file in the user's data directory."
    )
    streams: str | None = Field(
        default=None,
        description="The store of replies in progress. Default: memory. `redis://…` is for several processes.",
    )
    log_format: Literal["auto", "rich", "json"] = Field(default="auto", description="`auto` is `rich` on a terminal.")
    log_chunks: Literal["some", "all"] = Field(
        default="some",
        description="The chunks of a reply to log. `some` are the first, every tenth and the last.",
    )
    api_keys: Keys = Field(default=(), description="The server's API keys. Without any, it is open to everybody.")
    admin_keys: Keys = Field(
        default=(), description="The keys that see the statistics of all. Default: the only key, if there is one."
    )
    cors_origins: Names = Field(default=(), description="The origins whose pages may use the server. Default: none.")
    hosts: Names = Field(
        default=(), description="The names that a server without keys answers to, besides `localhost`. `*` means any."
    )
    sessions_on_demand: bool = Field(
        default=True, description="Whether a message to an unknown session begins that session."
    )

    demo_words: float = Field(default=4.0, gt=0, description="The average number of words per piece of the demo model.")
    demo_pace: float = Field(default=0.1, ge=0, description="The demo model's pause between pieces.")

    max_message: int = Field(default=32_000, gt=0, description="The maximum length of a message.")
    max_reply: int = Field(default=1_000_000, gt=0, description="The maximum length of a reply. A longer one fails.")
    max_body: int = Field(default=1 << 20, gt=0, description="The maximum size of a request's body.")
    max_sessions: int = Field(default=1_000_000, gt=0, description="The maximum number of sessions of an owner.")
    max_turns: int = Field(default=5_000, gt=0, description="The maximum number of turns of a session.")
    max_streams: int = Field(default=2_000, gt=0, description="The maximum number of replies in progress.")
    context_messages: int = Field(default=100, gt=0, description="The maximum messages for the model.")
    context_characters: int = Field(default=200_000, gt=0, description="The maximum total length of these.")
    model_timeout: float = Field(default=120.0, gt=0, description="The longest silence of the model.")

    @field_validator("api_keys", "admin_keys", "cors_origins", "hosts", mode="before")
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

    @property
    def shares_streams(self) -> bool:
        """True if other processes can use the streams."""
        return self.streams is not None and not self.streams.startswith("memory:")

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return database_url(self.database)


def database_url(database: str | None) -> str:
    """Return the SQLAlchemy URL for a file, `sqlite:///…` or `postgresql://…`. Raise ValueError for other URLs."""
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

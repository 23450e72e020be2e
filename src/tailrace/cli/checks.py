"""What has to be right before a chat server starts, each failure in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pydantic import ValidationError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..chat.banner import ServerFacts
from ..chat.models.choose import UnusableModel, open_model, resolve_model
from ..chat.settings import PREFIX, ChatSettings
from ..chat.store import StoreError, open_store
from .command import CommandError, UsageError

# Their values may hold a secret.
UNSPOKEN = frozenset({"api_keys", "database"})


def read_settings(environment: Mapping[str, str], names: Mapping[str, str]) -> ChatSettings:
    """The settings; UsageError names a wrong value by `names`, or else by its variable."""
    try:
        return ChatSettings.from_environment(environment)
    except ValidationError as error:
        wrong = error.errors()[0]
    field = str(wrong["loc"][0])
    variable = PREFIX + field.upper()
    got = "" if field in UNSPOKEN else f", but got {wrong['input']!r}"
    message = wrong["msg"]
    raise UsageError(f"{names.get(variable, variable)}: {message[:1].lower()}{message[1:]}{got}")


def check(settings: ChatSettings, environment: Mapping[str, str], address: str) -> ServerFacts:
    """Open the model and the database once, which brings its schema to the newest version, and close them again.

    UsageError for what cannot be meant or is not installed, CommandError for a database that cannot be opened.
    """
    try:
        text = settings.database_url
    except ValueError as error:
        raise UsageError(f"cannot use the database: {error}") from None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # What is said of it may show the password.
        raise UsageError("cannot use the database: its URL cannot be read") from None
    try:
        return asyncio.run(_open(settings, environment, address, url))
    except UnusableModel as error:
        raise UsageError(error) from None
    except StoreError as error:
        kind = UsageError if isinstance(error.__cause__, ModuleNotFoundError) else CommandError
        raise kind(f"cannot open the database {error}") from None


async def _open(settings: ChatSettings, environment: Mapping[str, str], address: str, url: URL) -> ServerFacts:
    note = resolve_model(settings.model, environment).note
    opened = open_model(
        settings.model,
        environment,
        demo_words=settings.demo_words,
        demo_pace=settings.demo_pace,
        timeout=settings.model_timeout,
    )
    async with opened as model, open_store(settings.database_url):
        return ServerFacts(model.name, model.framework, address, place_of(url), note=note)


def place_of(url: URL) -> str:
    """Where a database is, without its password and its options, which may have one too."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()

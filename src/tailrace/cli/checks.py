"""What has to be right before a chat server starts, each failure in one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import ValidationError

from ..chat.journal import ServerFacts
from ..chat.logs import LogFormat, configure_logging
from ..chat.models import open_model
from ..chat.models.spec import UnusableModel, resolve_model
from ..chat.settings import PREFIX, ChatSettings
from ..chat.store import InUse, StoreError, open_store
from .command import CommandError, UsageError

logger = logging.getLogger("tailrace.serve")

# Their values may hold a secret.
UNSPOKEN = frozenset({"api_keys", "admin_keys", "database"})


def read_settings(names: Mapping[str, str]) -> ChatSettings:
    """Return the settings of the environment. UsageError names a wrong value by `names`, or else by its variable."""
    try:
        return ChatSettings()
    except ValidationError as error:
        wrong = error.errors()[0]
    field = str(wrong["loc"][0])
    variable = PREFIX + field.upper()
    got = "" if field in UNSPOKEN else f", but got {wrong['input']!r}"
    message = wrong["msg"].removeprefix("Value error, ")
    raise UsageError(f"{names.get(variable, variable)}: {message[:1].lower()}{message[1:]}{got}")


def warn_of_strangers(environment: Mapping[str, str], known: Iterable[str], log_format: LogFormat) -> None:
    """Log the variables that look like settings, but are neither these nor one of `known`: spelled wrong, often."""
    meant = [field.upper() for field in ChatSettings.model_fields]
    said = {name.removeprefix(PREFIX) for name, value in environment.items() if value and name.startswith(PREFIX)}
    strangers = sorted(said.difference(meant, (name.removeprefix(PREFIX) for name in known)))
    if strangers:
        configure_logging(log_format)  # which is else done by the process that serves
    for name in strangers:
        close = get_close_matches(name, meant, n=1)
        hint = f": did you mean {PREFIX}{close[0]}?" if close else ""
        logger.warning("%s%s is no setting of the server%s", PREFIX, name, hint)


def check(settings: ChatSettings, environment: Mapping[str, str], address: str) -> ServerFacts:
    """Open the model and the database once, which brings its schema to the newest version, and close them again.

    UsageError for what cannot be meant or is not installed, CommandError for a database that cannot be opened.
    """
    try:
        url = settings.database_url
    except ValueError as error:
        raise UsageError(f"cannot use the database: {error}") from None
    try:
        return asyncio.run(_open(settings, environment, address, url))
    except asyncio.CancelledError:  # pragma: no cover - takes both within a moment
        # Only Ctrl-C cancels it; a driver whose own timeout is under way can keep asyncio.run from seeing that.
        raise KeyboardInterrupt from None
    except UnusableModel as error:
        raise UsageError(error) from None
    except InUse as error:
        raise CommandError(f"cannot use the database: {error}") from None
    except StoreError as error:
        # What a database raised is its cause; without one it was not even asked.
        kind = UsageError if isinstance(error.__cause__, ModuleNotFoundError | None) else CommandError
        raise kind(f"cannot use the database: {error}") from None


async def _open(settings: ChatSettings, environment: Mapping[str, str], address: str, url: str) -> ServerFacts:
    note = resolve_model(settings.model, environment).note
    opened = open_model(
        settings.model,
        environment,
        demo_words=settings.demo_words,
        demo_pace=settings.demo_pace,
        timeout=settings.model_timeout,
    )
    async with opened as model, open_store(url) as store:
        return ServerFacts(model.name, address, store.place, note=note)

from __future__ import annotations

from pathlib import Path

from tailrace.chat.settings import ChatSettings
from tailrace.cli.checks import check

ADDRESS = "http://127.0.0.1:8000"


def test_what_has_been_checked_can_be_announced(tmp_path: Path) -> None:
    database = tmp_path / "new" / "chat.sqlite3"
    facts = check(settings(str(database)), {}, ADDRESS)
    assert (facts.model, facts.address, facts.database) == ("demo", ADDRESS, str(database))
    assert database.is_file()


def test_a_database_in_memory_has_no_file() -> None:
    assert check(settings("sqlite://"), {}, ADDRESS).database == "SQLite in memory"


def settings(database: str) -> ChatSettings:
    return ChatSettings.model_validate({"model": "demo", "database": database})

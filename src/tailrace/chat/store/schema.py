"""The tables, as the newest version of the schema has them; `migrations/` leads there.

Their names begin with `tailrace_`, because a database may hold more than chats.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
)

HEAD = "0001"
"""The newest version of the schema."""

VERSION_TABLE = "tailrace_version"

metadata = MetaData()

# SQLite counts rows up only in a column that is exactly an INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

# How many sessions an owner has is kept, because counting them takes the longer the more they are.
owners = Table(
    "tailrace_owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("sessions", Integer, nullable=False),
)

sessions = Table(
    "tailrace_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, ForeignKey(owners.c.owner), nullable=False),
    Column("title", Text, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Index("tailrace_sessions_by_update", "owner", "updated", "id"),
)

turns = Table(
    "tailrace_turns",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("session_id", Text, ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False),
    Column("stream_id", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("message", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("context_messages", Integer, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("owner", Text, nullable=False),  # the session's, so that an index can hold it with the key
    sqlite_autoincrement=True,  # or the number of a turn that was removed could be given away again
)

Index("tailrace_turns_by_session", turns.c.session_id, turns.c.number)
Index("tailrace_turns_by_stream", turns.c.stream_id, unique=True)

has_key = turns.c.idempotency_key.is_not(None)
Index(
    "tailrace_turns_by_key",
    turns.c.owner,
    turns.c.idempotency_key,
    unique=True,
    sqlite_where=has_key,
    postgresql_where=has_key,
)

# Few at any time; the next start looks for them. A parameter in place of the word would hide the index.
is_generating = turns.c.state == literal_column("'generating'")
Index("tailrace_turns_generating", turns.c.number, sqlite_where=is_generating, postgresql_where=is_generating)

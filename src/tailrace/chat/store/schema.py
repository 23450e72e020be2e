"""The tables of the newest version of the schema. The scripts in `migrations/` upgrade to it.

All names begin with `tailrace_`, because a database may hold more than chats.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
)

HEAD = "0004"
"""The newest version of the schema."""

VERSION_TABLE = "tailrace_version"

metadata = MetaData()

# SQLite numbers rows automatically only in a column whose type is exactly INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

# Store the number of an owner's sessions, because counting rows takes longer the more there are.
owners = Table(
    "tailrace_owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("sessions", Integer, nullable=False),
)

# Clients may choose the ids of their sessions, so an id is unique only together with its owner.
sessions = Table(
    "tailrace_sessions",
    metadata,
    Column("owner", Text, ForeignKey(owners.c.owner), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("name", Text),  # the title that the user gave
    Index("tailrace_sessions_by_update", "owner", "updated", "id"),
)

turns = Table(
    "tailrace_turns",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("owner", Text, nullable=False),
    Column("session_id", Text, nullable=False),
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
    Column("replaces", Text),
    Column("worker", Text),  # which of the processes that share the database runs the turn
    ForeignKeyConstraint(
        ["owner", "session_id"], [sessions.c.owner, sessions.c.id], name="tailrace_turns_session", ondelete="CASCADE"
    ),
    sqlite_autoincrement=True,  # otherwise SQLite reuses the number of a deleted turn
)

Index("tailrace_turns_by_session", turns.c.owner, turns.c.session_id, turns.c.number)
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

# These turns are always few. The planner would not use the index for a parameter in place of the literal.
is_generating = turns.c.state == literal_column("'generating'")
Index(
    "tailrace_turns_generating",
    turns.c.owner,
    turns.c.session_id,
    sqlite_where=is_generating,
    postgresql_where=is_generating,
)

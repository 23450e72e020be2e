"""Make the id of a session unique among those of its owner, instead of among all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SESSIONS = "owner, id, title, turns, created, updated"
TURNS = (
    "number, owner, session_id, stream_id, idempotency_key, message, model, created, state, reply, chunks, seconds, "
    "context_messages, input_tokens, output_tokens, error_code, error_message"
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rebuild()
    else:
        _alter()
    op.create_index("tailrace_turns_by_session", "tailrace_turns", ["owner", "session_id", "number"])


def _alter() -> None:
    op.drop_constraint("tailrace_turns_session_id_fkey", "tailrace_turns")
    op.drop_constraint("tailrace_sessions_pkey", "tailrace_sessions")
    op.create_primary_key("tailrace_sessions_pkey", "tailrace_sessions", ["owner", "id"])
    op.create_foreign_key(
        "tailrace_turns_session",
        "tailrace_turns",
        "tailrace_sessions",
        ["owner", "session_id"],
        ["owner", "id"],
        ondelete="CASCADE",
    )
    op.drop_index("tailrace_turns_by_session", "tailrace_turns")


def _rebuild() -> None:
    """Copy the rows to new tables, because SQLite cannot change a key.

    Drop the old turns first. While they refer to the old sessions, dropping the sessions would delete their rows.
    """
    _create_sessions()
    _create_turns()
    for table, columns in (("sessions", SESSIONS), ("turns", TURNS)):
        op.execute(f"INSERT INTO tailrace_new_{table} ({columns}) SELECT {columns} FROM tailrace_{table}")
    for table in ("turns", "sessions"):
        op.drop_table(f"tailrace_{table}")
        op.rename_table(f"tailrace_new_{table}", f"tailrace_{table}")
    op.create_index("tailrace_sessions_by_update", "tailrace_sessions", ["owner", "updated", "id"])
    op.create_index("tailrace_turns_by_stream", "tailrace_turns", ["stream_id"], unique=True)
    op.create_index(
        "tailrace_turns_by_key",
        "tailrace_turns",
        ["owner", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "tailrace_turns_generating", "tailrace_turns", ["number"], sqlite_where=sa.text("state = 'generating'")
    )


def _create_sessions() -> None:
    op.create_table(
        "tailrace_new_sessions",
        sa.Column("owner", sa.Text, sa.ForeignKey("tailrace_owners.owner"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
    )


def _create_turns() -> None:
    op.create_table(
        "tailrace_new_turns",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("context_messages", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.ForeignKeyConstraint(
            ["owner", "session_id"],
            ["tailrace_new_sessions.owner", "tailrace_new_sessions.id"],
            name="tailrace_turns_session",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )

"""Owners, their sessions, and the turns of each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "tailrace_owners",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("sessions", sa.Integer, nullable=False),
    )
    op.create_table(
        "tailrace_sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, sa.ForeignKey("tailrace_owners.owner"), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
    )
    op.create_index("tailrace_sessions_by_update", "tailrace_sessions", ["owner", "updated", "id"])
    _create_turns()


def _create_turns() -> None:
    op.create_table(
        "tailrace_turns",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, sa.ForeignKey("tailrace_sessions.id", ondelete="CASCADE"), nullable=False),
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
        sa.Column("owner", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    has_key = sa.text("idempotency_key IS NOT NULL")
    generating = sa.text("state = 'generating'")
    for name, columns, unique, where in (
        ("by_session", ["session_id", "number"], False, None),
        ("by_stream", ["stream_id"], True, None),
        ("by_key", ["owner", "idempotency_key"], True, has_key),
        ("generating", ["number"], False, generating),
    ):
        op.create_index(
            f"tailrace_turns_{name}",
            "tailrace_turns",
            columns,
            unique=unique,
            sqlite_where=where,
            postgresql_where=where,
        )

"""Keep which process runs a turn, and find the turns in progress of an owner."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("tailrace_turns", sa.Column("worker", sa.Text))
    op.drop_index("tailrace_turns_generating", "tailrace_turns")
    generating = sa.text("state = 'generating'")
    op.create_index(
        "tailrace_turns_generating",
        "tailrace_turns",
        ["owner", "session_id"],
        sqlite_where=generating,
        postgresql_where=generating,
    )

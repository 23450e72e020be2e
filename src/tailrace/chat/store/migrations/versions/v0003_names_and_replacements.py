"""Keep the names that users give to sessions, and which stream a turn replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("tailrace_sessions", sa.Column("name", sa.Text))
    op.add_column("tailrace_turns", sa.Column("replaces", sa.Text))

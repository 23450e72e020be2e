"""Alembic runs this for each upgrade. It uses the connection that is open already, and leaves logging alone."""

from alembic import context

from tailrace.chat.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()

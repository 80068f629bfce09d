"""Run by Alembic: brings the tables behind a connection up to date, in the transaction that it is in."""

from __future__ import annotations

from alembic import context

# Its own name: the database may be shared with another application that uses Alembic, MLflow for one.
VERSION_TABLE = "kcm_log_version"

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()

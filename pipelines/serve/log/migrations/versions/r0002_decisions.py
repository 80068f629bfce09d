"""A row for every answered item with its caller; audits say what became of them; alarms stay."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add tables and columns; rows that are there keep all that they hold."""
    op.create_table(
        "decisions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("client_request_id", sa.String(128)),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("route", sa.String(20), nullable=False),
        sa.Column("audit_share", sa.Float, nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("request_id", "item"),
        sqlite_autoincrement=True,
    )
    op.create_index("decisions_by_version", "decisions", ["model_version", "audit_share", "route"])
    op.create_table(
        "alarms",
        sa.Column("model_version", sa.String(200), primary_key=True),
        sa.Column("epsilon", sa.Float, nullable=False),
        sa.Column("regret_low", sa.Float, nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
    )
    key = op.create_table("log_key", sa.Column("value", sa.String(64), primary_key=True))
    op.bulk_insert(key, [{"value": secrets.token_hex(32)}])
    op.add_column("feedback", sa.Column("caller", sa.String(64)))
    # An instance of the version before, which may still run, writes no state.
    op.add_column("audits", sa.Column("state", sa.String(10), nullable=False, server_default="drawn"))
    op.execute("UPDATE audits SET state = 'answered' WHERE large_label IS NOT NULL")
    op.execute("UPDATE audits SET state = 'lost' WHERE large_label IS NULL")

"""What is known of a challenger that is tried out, and of drift."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add tables and columns; rows that are there were answered while nothing was tried out."""
    op.add_column("decisions", sa.Column("stage", sa.Integer))
    op.add_column("decisions", sa.Column("seconds", sa.Float))
    op.create_table(
        "shadows",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("gate_score", sa.Float, nullable=False),
        sa.Column("small_label", sa.String(200), nullable=False),
        sa.Column("keeps", sa.Boolean, nullable=False),
    )
    op.create_table(
        "failures",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("application", sa.String(200), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("failures_by_version", "failures", ["application", "model_version"])
    op.create_table(
        "drift",
        sa.Column("application", sa.String(200), primary_key=True),
        sa.Column("model_version", sa.String(200), primary_key=True),
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("quantity", sa.String(40), primary_key=True),
        sa.Column("e_value", sa.Float, nullable=False),
        sa.Column("largest", sa.Float, nullable=False),
        sa.Column("num_decisions", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )

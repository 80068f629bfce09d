"""What the loop learns and certifies from: the unit and probability of a decision, payloads, the inbox, deletions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add tables and columns; rows that are there have no application, unit or probability, and never get one."""
    for column in (
        sa.Column("application", sa.String(200)),
        sa.Column("task", sa.String(200)),
        sa.Column("unit", sa.String(64)),
        sa.Column("gate_score", sa.Float),
        sa.Column("small_label", sa.String(200)),
        sa.Column("probability", sa.Float),
        sa.Column("large_identity", sa.String(200)),
        sa.Column("writer", sa.String(32)),
        sa.Column("sequence", sa.BigInteger),
    ):
        op.add_column("decisions", column)
    op.create_index("decisions_by_application", "decisions", ["application", "number"])
    for table in ("escalated", "audits"):
        op.add_column(table, sa.Column("large_probabilities", sa.LargeBinary))
    _create(
        "payloads",
        sa.Column("application", sa.String(200), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("image", sa.LargeBinary),
        sa.Column("features", sa.LargeBinary),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("payloads_by_age", "payloads", ["application", "stored_at", "num_bytes"])
    _create(
        "inbox",
        sa.Column("attempt", sa.String(200), primary_key=True),
        sa.Column("application", sa.String(200), nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(10), nullable=False, server_default="drawn"),
        sa.Column("label", sa.String(200)),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True)),
    )
    op.create_index("inbox_by_attempt", "inbox", ["application", "attempt", "position"])
    _create(
        "forgotten",
        sa.Column("application", sa.String(200)),
        sa.Column("unit", sa.String(64)),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
    )


def _create(name: str, *columns: sa.Column) -> None:  # type: ignore[type-arg]
    request_id = sa.Column("request_id", sa.String(128), primary_key=True)
    op.create_table(name, request_id, sa.Column("item", sa.Integer, primary_key=True), *columns)

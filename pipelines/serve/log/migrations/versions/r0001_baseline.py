"""The tables as they were before Alembic held them; a database that has them already keeps them as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing."""
    _create(
        "feedback",
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("task", sa.String(200)),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    )
    _create(
        "escalated",
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("route", sa.String(20), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("probabilities", sa.JSON, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("gate_score", sa.Float, nullable=False),
        sa.Column("cost_s", sa.Float, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("task", sa.String(200)),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
    )
    _create(
        "audits",
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("small_label", sa.String(200), nullable=False),
        sa.Column("large_label", sa.String(200)),
        sa.Column("audited_at", sa.DateTime(timezone=True), nullable=False),
    )


def _create(name: str, *columns: sa.Column) -> None:  # type: ignore[type-arg]
    request_id = sa.Column("request_id", sa.String(128), primary_key=True)
    item = sa.Column("item", sa.Integer, primary_key=True)
    op.create_table(name, request_id, item, *columns, if_not_exists=True)

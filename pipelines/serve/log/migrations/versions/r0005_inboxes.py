"""What people are asked for, so that the service can ask them without the storage of the loop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the inboxes, and the answer that is disputed; items that are there are of inboxes that nobody can open."""
    op.add_column("inbox", sa.Column("small_label", sa.String(200)))
    op.create_table(
        "inboxes",
        sa.Column("application", sa.String(200), primary_key=True),
        sa.Column("attempt", sa.String(200), primary_key=True),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
    )

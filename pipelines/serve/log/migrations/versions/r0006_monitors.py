"""What one process knows of a version, what may have raised an alarm, heartbeats of a trial, tests of an inbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the records of the monitors; each begins with the first decision of its version."""
    op.add_column("feedback", sa.Column("new", sa.Boolean))
    op.add_column("inboxes", sa.Column("tests", sa.JSON))
    op.add_column("alarms", sa.Column("upto", sa.BigInteger))
    op.create_table(
        "trials",
        sa.Column("application", sa.String(200), primary_key=True),
        sa.Column("model_version", sa.String(200), primary_key=True),
        sa.Column("beats", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "monitors",
        sa.Column("application", sa.String(200), primary_key=True),
        sa.Column("model_version", sa.String(200), primary_key=True),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("state", sa.JSON, nullable=False),
    )

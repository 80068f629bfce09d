"""The tables of the feedback log."""

from __future__ import annotations

from sqlalchemy import JSON, Column, DateTime, Float, Integer, MetaData, String, Table, Text

SCHEMA = MetaData()

FEEDBACK = Table(
    "feedback",
    SCHEMA,
    Column("request_id", String(128), primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("label", String(200), nullable=False),
    Column("text", Text),
    Column("task", String(200)),
    Column("received_at", DateTime(timezone=True), nullable=False),
)
ESCALATED = Table(
    "escalated",
    SCHEMA,
    Column("request_id", String(128), primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("model_version", String(200), nullable=False),
    Column("route", String(20), nullable=False),
    Column("label", String(200), nullable=False),
    Column("probabilities", JSON, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("gate_score", Float, nullable=False),
    Column("cost_s", Float, nullable=False),
    Column("text", Text),
    Column("task", String(200)),
    Column("answered_at", DateTime(timezone=True), nullable=False),
)
AUDITS = Table(
    "audits",
    SCHEMA,
    Column("request_id", String(128), primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("model_version", String(200), nullable=False),
    Column("probability", Float, nullable=False),
    Column("small_label", String(200), nullable=False),
    Column("large_label", String(200)),  # null until the large model has answered, and where it never does
    Column("audited_at", DateTime(timezone=True), nullable=False),
)

"""The tables of the feedback log: each holds what is known of single items of requests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, DateTime, Float, Integer, MetaData, String, Table, Text

SCHEMA = MetaData()


def _of_items(name: str, *columns: Column[Any]) -> Table:
    """A table with one row for an item of a request, however often that is sent."""
    request_id = Column("request_id", String(128), primary_key=True)
    return Table(name, SCHEMA, request_id, Column("item", Integer, primary_key=True), *columns)


FEEDBACK = _of_items(
    "feedback",
    Column("label", String(200), nullable=False),
    Column("text", Text),
    Column("task", String(200)),
    Column("received_at", DateTime(timezone=True), nullable=False),
)
ESCALATED = _of_items(
    "escalated",
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
AUDITS = _of_items(
    "audits",
    Column("model_version", String(200), nullable=False),
    Column("probability", Float, nullable=False),
    Column("small_label", String(200), nullable=False),
    Column("large_label", String(200)),  # null until the large model has answered, and where it never does
    Column("audited_at", DateTime(timezone=True), nullable=False),
)

"""Rows of the decision log: which column holds what of a decision, and in what form."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any

from kcm.tasks.units import unit_of
from pipelines.serve.log.entries import Decision, Escalated, Shadow
from pipelines.serve.log.records.payloads import Payload, as_bytes

MAX_NAME = 200  # characters of a label or a task, as wide as the columns are
ANONYMOUS = "anonymous"  # the caller in the log where no keys are required


def hashed(caller: str | None, key: bytes) -> str:
    """A keyed hash of the caller: it distinguishes callers in this log and matches nothing in another one."""
    return ANONYMOUS if caller is None else hmac.new(key, caller.encode(), sha256).hexdigest()


def decision_row(decision: Decision, key: bytes) -> dict[str, Any]:
    return {
        "request_id": decision.origin.request_id,
        "item": decision.item,
        "client_request_id": decision.origin.client_request_id,
        "caller": hashed(decision.origin.caller, key),
        "model_version": decision.model_version,
        "route": decision.route,
        "audit_share": decision.audit_share,
        "answered_at": decision.answered_at,
        "task": _name(decision.task),
        "unit": None if decision.unit is None else unit_of(decision.unit, key),
        "gate_score": decision.gate_score,
        "small_label": _name(decision.small_label),
        "probability": decision.probability,
        "large_identity": decision.large_identity,
        "sequence": decision.sequence,
        "stage": decision.stage,
        "seconds": decision.seconds,
    }


def shadow_row(decision: Decision, shadow: Shadow) -> dict[str, Any]:
    return {
        "request_id": decision.origin.request_id,
        "item": decision.item,
        "model_version": shadow.model_version,
        "gate_score": shadow.gate_score,
        "small_label": _name(shadow.small_label),
        "keeps": shadow.keeps,
    }


def payload_row(decision: Decision, payload: Payload, application: str) -> dict[str, Any]:
    return storable(
        {
            "request_id": decision.origin.request_id,
            "item": decision.item,
            "application": application,
            "text": payload.text,
            "image": payload.image,
            "features": payload.features,
            "num_bytes": payload.num_bytes,
            "stored_at": decision.answered_at,
        }
    )


def escalated_row(escalated: Escalated) -> dict[str, Any]:
    fields = ("route", "label", "probabilities", "gate_score", "cost_s")
    known_C = escalated.large_probabilities_C
    return {name: getattr(escalated.answer, name) for name in fields} | {
        "item": escalated.item,
        "task": escalated.task,
        "confidence": escalated.answer.judge_confidence,
        "large_probabilities": None if known_C is None else as_bytes(known_C),
    }


def audit_row(decision: Decision) -> dict[str, Any]:
    return {
        "request_id": decision.origin.request_id,
        "item": decision.item,
        "model_version": decision.model_version,
        "probability": decision.audit_share,
        "small_label": _name(decision.drawn_label),
        "audited_at": decision.answered_at,
        "state": "drawn",
    }


def _name(name: str | None) -> str | None:
    """A name that PostgreSQL can store: a refused decision would be retried with every batch."""
    return name and name.replace("\x00", "")[:MAX_NAME]


def storable(row: dict[str, Any]) -> dict[str, Any]:
    """Without the character NUL, which PostgreSQL cannot store in a text."""
    return {name: value.replace("\x00", "") if isinstance(value, str) else value for name, value in row.items()}

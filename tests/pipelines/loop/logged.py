"""A made decision log, as the stages of an update read it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest, unit_of
from pipelines.serve.log.window import WINDOW

KEY = b"0123456789abcdef"
START = datetime(2026, 3, 1, tzinfo=UTC)


class MadeLog:
    """Decisions 1, 2, ... about texts; `lost` of them never reached the log.

    `refuted_upto` is where an alarm was given, `e_value` is the evidence of new classes.
    """

    unit_key = KEY
    refuted_upto: int | None = None
    e_value: float = 1.0

    def __init__(self, rows: Sequence[dict[str, Any]], lost: int = 0, forgets: Iterable[str] = ()) -> None:
        self.table, self.lost, self.forgets = pa.Table.from_pylist(list(rows), WINDOW), lost, frozenset(forgets)

    def window(self, after: int, upto: int, max_share: float) -> pa.Table:
        return self.table.slice(after, upto - after)

    def uncounted(self, after: int, upto: int, max_share: float) -> int:
        return 0

    def gaps(self, after: int, upto: int) -> int:
        return self.lost

    def alarm(self, version: str) -> int | None:
        return self.refuted_upto if version == "made/1" else None

    def novelty(self, version: str) -> float:
        return self.e_value

    def forgotten(self) -> frozenset[str]:
        return self.forgets


def unit(text: str) -> str:
    """The name of the unit of a text in a made log."""
    return unit_of(unit_digest(Content(text)), KEY)


def decisions(
    texts: Sequence[str],
    large: Sequence[str],
    *,
    identity: str = "large-1",
    answers: Sequence[str] = ("bad", "good"),
    share: float = 0.5,
    seed: int = 0,
    **columns: Any,
) -> list[dict[str, Any]]:
    """A decision about every text: half of them are escalated, a share of the others is audited.

    `large` is what the large model answers, or would have; its probabilities over `answers` are nearly sure.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number, (text, label) in enumerate(zip(texts, large, strict=True), 1):
        escalated = bool(rng.random() < 0.5)
        asked = escalated or bool(rng.random() < share)
        sure = [0.9 if each == label else 0.1 / max(1, len(answers) - 1) for each in answers]
        rows.append(
            {
                "number": number,
                "request_id": f"r{number}",
                "item": 0,
                "caller": "c",
                "model_version": "made/1",
                "large_identity": identity,
                "unit": unit(text),
                "gate_score": 0.5,
                "small_label": answers[0],
                "route": "large" if escalated else "small",
                "probability": 1.0 if escalated else share,
                "audit_share": share,
                "state": "answered" if asked else None,
                "large_label": label if asked else None,
                "large_probabilities": sure if asked else None,
                "text": text,
                "answered_at": START + timedelta(minutes=number),
            }
            | columns
        )
    return rows

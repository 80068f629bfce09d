"""Windows of a made log, in the columns of its reader."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.loop.window.judged_window import JudgedWindow
from pipelines.loop.window.stage import WindowFacts

START = datetime(2026, 3, 1, tzinfo=UTC)


def made_window(num: int, *, rate: float = 0.0, share: float = 0.2, seed: int = 0, **columns: Any) -> pa.Table:
    """Decisions 101, 102, ... of which the champion escalated three in ten; labels are `yes` and `no`.

    The challenger is to answer `yes` everywhere; the large model answers `no` in a share `rate`.
    """
    rng = np.random.default_rng(seed)
    escalated = rng.random(num) < 0.3
    asked = escalated | (rng.random(num) < share)
    answers = np.where(rng.random(num) < rate, "no", "yes")
    made = {
        "number": pa.array(np.arange(101, 101 + num)),
        "request_id": [f"r{i}" for i in range(num)],
        "item": pa.array(np.zeros(num), pa.int32()),
        "model_version": ["reviews/1"] * num,
        "large_identity": ["large-1"] * num,
        "unit": [f"u{i}" for i in range(num)],
        "task": pa.nulls(num, pa.string()),
        "route": np.where(escalated, "large", "small"),
        "probability": np.where(escalated, 1.0, share),
        "audit_share": np.full(num, share),
        "state": pa.array([("answered" if a and not e else None) for a, e in zip(asked, escalated, strict=True)]),
        "large_label": pa.array([str(x) if a else None for x, a in zip(answers, asked, strict=True)]),
        "label": pa.nulls(num, pa.string()),
        "text": [f"text {i}" for i in range(num)],
        "image": pa.nulls(num, pa.binary()),
        "answered_at": pa.array([START + timedelta(minutes=i) for i in range(num)]),
    }
    return pa.table(made | columns)


def facts_of(window: pa.Table, **changes: Any) -> WindowFacts:
    """What is known of a made window."""
    known = {
        "application": "reviews",
        "after": 100,
        "upto": 100 + window.num_rows,
        "num_decisions": window.num_rows,
        "large_identity": "large-1",
        "share_floor": 0.2,
    }
    return WindowFacts.model_validate(known | changes)


def judged_of(window: pa.Table, scores: Any = None) -> JudgedWindow:
    """A challenger that answers `yes` everywhere, by default with the same gate score."""
    num = window.num_rows
    return JudgedWindow.of(window, np.zeros(num) if scores is None else scores, ["yes"] * num)

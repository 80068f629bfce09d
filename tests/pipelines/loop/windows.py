"""Windows of a made log, in the columns of its reader, and the items that are drawn from one for people."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.cascade.policy import KEEP_ALL, Policy
from pipelines.loop.gates.disagreements import LabelPlan
from pipelines.loop.gates.items_to_label import DrawnItems
from pipelines.loop.window.judged_window import JudgedWindow
from pipelines.loop.window.stage import WindowFacts
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.labels import LabelLog

NUM = 9000  # decisions of a window that items are drawn from
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
        "label_probability": pa.nulls(num, pa.float64()),
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


def plan_of(attempt: str = "a1", **changes: Any) -> LabelPlan:
    """The plan of the labels of a challenger that keeps everything."""
    known = {
        "attempt": attempt,
        "version": "reviews/2",
        "policy": Policy(decision=KEEP_ALL),
        "labels": ("yes", "no", "none of these"),
        "floor": 0.2,
        "epsilon": 0.02,
        "delta": 0.06,
    }
    return LabelPlan.model_validate(known | changes)


@dataclass
class Asked:
    """The items drawn from a made window, whose log holds the disputed decisions."""

    drawn: DrawnItems
    window: pa.Table
    url: str


def made_drawn(folder: Path, window: pa.Table) -> Asked:
    """The items of a challenger that answers `yes` everywhere, from a window of NUM decisions."""
    url = f"sqlite:///{folder / 'log.db'}"
    requests, answers = window["request_id"].to_pylist(), window["large_label"].to_pylist()
    disputed = [request for request, label in zip(requests, answers, strict=True) if label == "no"] or requests[:1]
    log = DecisionLog(url, 30.0, "reviews")
    log.open()
    log.add_decisions(
        [LoggedDecision(Origin(request), 0, "reviews/1", "small", audit_share=0.2, unit=b"u") for request in disputed]
    )
    log.close()
    artefact: Any = SimpleNamespace(table=window)
    return Asked(DrawnItems(LabelLog(url, 60.0, "reviews"), plan_of(), judged_of(window), artefact), window, url)

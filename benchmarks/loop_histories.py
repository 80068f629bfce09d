"""Certificates on simulated logs: how many are broken, and how many labels they take.

A history is six updates of one application, each with a window, a challenger and a share of the lineage's delta. The
tables have the columns of the log's reader and go through the functions that `kcm update` calls. Challengers are as bad
as they can be: every disagreement is a loss, the search asks to keep more than may be kept, so that only the
certificate stands between it and the promise. A history is broken if one of its certificates is: for `traffic`, where
the challenger's true loss over the window's own certify decisions exceeds epsilon at the deployed threshold; for
`labelled`, where its expected loss does.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import binom

from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.certify.certificate import Certificate, CertificateConfig
from kcm.certify.labelled import LabelledTest, LabelledTraffic
from kcm.certify.ledger import look_delta
from kcm.certify.traffic import Traffic
from pipelines.loop.disputes import InboxPlan
from pipelines.loop.judged import JudgedWindow
from pipelines.loop.recertify import certify_window
from pipelines.loop.window import WindowFacts

EPSILON, DELTA, UPDATES, HISTORIES = 0.02, 0.1, 6, 500
ASKED, RUNS = 2000, 100  # answers of the large model for kept items in a window that is labelled
SCENARIOS = ("drift", "delay", "lost", "feedback", "adversary")
START = datetime(2026, 1, 1, tzinfo=UTC)

RowText = tuple[str, str, str, str]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Simulated:
    """A window of certify decisions, and what its log does not tell. Every column has shape [N]."""

    table: pa.Table
    score: Floats  # the challenger's
    loses: Bools  # whether it loses where it keeps
    risk: Floats  # the probability of that
    floor: float

    def loss(self, threshold: float) -> float:
        """The share of decisions that the challenger loses at `threshold`."""
        return float((self.loses & (self.score > threshold)).mean())

    def expected_loss(self, threshold: float) -> float:
        return float((self.risk * (self.score > threshold)).mean())


def history_rows() -> list[RowText]:
    """Broken certificates over all histories, and how many there were to break."""
    broken, methods, kept = [], Counter[str](), Counter[str]()
    by_scenario: Counter[str] = Counter()
    for seed in range(HISTORIES):
        scenario = SCENARIOS[seed % len(SCENARIOS)]
        rng = np.random.default_rng(seed)
        failed = False
        for number in range(1, UPDATES + 1):
            certificate, held = _update(rng, scenario, f"{seed}-{number}", number)
            methods[certificate.method] += 1
            kept[certificate.method] += certificate.decision != "escalate_all"
            failed |= not held
        broken.append(failed)
        by_scenario[scenario] += failed
    issued = ", ".join(f"{kept[m]} of {methods[m]} `{m}` keep something" for m in sorted(methods))
    parts = ", ".join(f"{name} {by_scenario[name]}" for name in SCENARIOS)
    return [
        (
            f"broken certificates, {HISTORIES} histories of {UPDATES} updates",
            "<= 10%",
            "<= 5%",
            f"{100 * np.mean(broken):.1f}% ({parts}, of {HISTORIES // len(SCENARIOS)} each); {issued}",
        )
    ]


def _update(rng: np.random.Generator, scenario: str, attempt: str, number: int) -> tuple[Certificate, bool]:
    """One update; the certificate, and whether what it promises is true."""
    share, config = (0.2, 0.3)[number % 2], CertificateConfig(epsilon=EPSILON, delta=DELTA)
    window = _window(rng, 4000, share, scenario)
    # On the window: what no search knows, and a challenger that is just bad enough.
    worst = EPSILON * (1.01 if rng.random() < 0.5 else 0.3)
    edge = _threshold(window, worst, expected=number % 2 == 0)
    spend, size = look_delta(DELTA, number), window.table.num_rows
    policy = Policy(decision=KEEP_ALL if number % 2 else Decision.of(edge))
    labels = None
    if number % 2 == 0:
        labels = InboxPlan(
            attempt=attempt,
            application="simulated",
            version="simulated/1",
            policy=policy,
            labels=("small", "large"),
            floor=share,
            epsilon=EPSILON,
            delta=spend,
        )
    table = window.table if labels is None else _labelled(rng, window, edge, labels, scenario)
    facts = WindowFacts(
        application="simulated", after=0, upto=size, num_decisions=size, large_identity="large", share_floor=share
    )
    _, certificates = certify_window(
        JudgedWindow.of(table, window.score, ["small"] * size),
        policy,
        config,
        facts,
        delta=spend,
        expires_at=START + timedelta(days=30),
        labels=labels,
    )
    certificate = certificates[None]
    cut = certificate.route.cut
    true = window.loss(cut) if labels is None else window.expected_loss(cut)
    return certificate, true <= EPSILON


def _window(rng: np.random.Generator, num: int, share: float, scenario: str) -> Simulated:
    """Decisions of which the champion escalated those that it found hard; the challenger is surer of easier ones."""
    ease = rng.normal(size=num)
    risk = 0.25 / (1 + np.exp(2 * ease + rng.uniform(0, 2)))
    if scenario == "drift":  # within the window: all well, then not
        risk = np.where(np.arange(num) < num * rng.uniform(0.2, 0.8), 0.1, 2.0) * risk
    loses = rng.random(num) < risk
    escalated = ease + rng.normal(size=num) < -1.5
    probability = np.where(escalated, 1.0, np.where(np.arange(num) < num // 2, share, 1.5 * share))
    asked = rng.random(num) < probability
    state = np.where(asked & ~escalated, "answered", None)
    gone = np.zeros(num, dtype=bool)
    if scenario == "lost":  # four audits in five, of losses above all
        gone = asked & ~escalated & (rng.random(num) < np.where(loses, 0.95, 0.79))
        state = np.where(gone, "lost", state)
    elif scenario == "delay":  # answers that differ come later than the window ends
        gone = asked & ~escalated & (rng.random(num) < np.where(loses, 0.5, 0.02))
        state = np.where(gone, "drawn", state)
    large = np.where(asked & ~gone, np.where(loses, "large", "small"), None)
    # People volunteer labels where they like: praise alone, or complaints alone.
    volunteered = np.where(rng.random(num) < 0.3, "small" if scenario == "feedback" else "large", None)
    table = pa.table(
        {
            "number": np.arange(1, num + 1),
            "request_id": [f"{rng.integers(1 << 60):x}" for _ in range(num)],
            "item": np.zeros(num, dtype=np.int32),
            "model_version": ["simulated/1"] * num,
            "large_identity": ["large"] * num,
            "unit": [f"u{i}" for i in range(num)],
            "task": pa.nulls(num, pa.string()),
            "route": np.where(escalated, "large", "small"),
            "probability": probability,
            "audit_share": np.where(np.arange(num) < num // 2, share, 1.5 * share),
            "state": pa.array(state, pa.string()),
            "large_label": pa.array(large, pa.string()),
            "label": pa.array(volunteered, pa.string()),
            "inbox_label": pa.nulls(num, pa.string()),
            "inbox_probability": pa.nulls(num, pa.float64()),
            "inbox_state": pa.nulls(num, pa.string()),
            "answered_at": [START] * num,
        }
    )
    return Simulated(table, ease + 0.5 * rng.normal(size=num), loses, risk, share)


def _threshold(window: Simulated, loss: float, *, expected: bool) -> float:
    """The highest threshold at which the challenger loses more than `loss`."""
    order = np.argsort(-window.score)
    lost = np.cumsum((window.risk if expected else window.loses)[order]) / len(order)
    first = int(np.searchsorted(lost, loss, side="right"))
    return float(np.nextafter(window.score[order[min(first, len(order) - 1)]], -math.inf))


def _labelled(
    rng: np.random.Generator, window: Simulated, threshold: float, labels: InboxPlan, scenario: str
) -> pa.Table:
    """The window after people answered what the attempt put before them; the true label is the large model's.

    An adversary labels the challenger's errors alone and skips all else.
    """
    table = window.table
    judged = JudgedWindow.of(table, window.score, ["small"] * table.num_rows)
    rho = labels.probability(judged)
    differs = np.array([label == "large" for label in table["large_label"].to_pylist()])
    shown = differs & (window.score > threshold) & labels.drawn(judged)
    skips = rng.random(len(shown)) < (0.3 if scenario == "adversary" else 0.0)
    state = np.where(shown, np.where(skips, "skipped", "labelled"), None)
    columns: dict[str, Any] = {
        "inbox_state": pa.array(state, pa.string()),
        "inbox_label": pa.array(np.where(state == "labelled", "large", None), pa.string()),
        "inbox_probability": pa.array([p if s else None for p, s in zip(rho, shown, strict=True)], pa.float64()),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def label_rows() -> list[RowText]:
    """Labels up to a certificate, for a challenger that disagrees more than it loses, at equal kept share.

    It differs more than it may lose: without labels no number of decisions would certify it.
    """
    delta, rows = look_delta(DELTA, 1), []
    for disputed, losing in ((0.03, 0.1), (0.05, 0.1), (0.1, 0.05), (0.1, 0.1)):
        share, regret = 0.05, disputed * losing
        ours = np.array([_labels_needed(seed, disputed, losing, share, delta) for seed in range(RUNS)])
        uniform = np.array([_labels_needed(seed, 1.0, regret, 1.0, delta) for seed in range(RUNS)])
        fixed = _binomial_labels(regret, delta)
        least = min(float(np.median(uniform)), fixed)
        rows.append(
            (
                f"labels for a certificate at epsilon {EPSILON:g}: challenger differs on {disputed:.0%} and loses"
                f" {regret:.2%}, audit share {share:.0%}",
                "both stated",
                "a tenth",
                f"{np.median(ours):.0f} on disagreements, uniform {np.median(uniform):.0f} (betting) or {fixed}"
                f" (binomial): 1/{least / np.median(ours):.0f}; without labels never",
            )
        )
    return rows


def _labels_needed(seed: int, disputed: float, losing: float, share: float, delta: float) -> float:
    """Labels, in the frozen order, up to the one with which the test stops; infinite where the window ends first."""
    rng = np.random.default_rng(seed)
    num = round(ASKED / share)
    asked, disagrees = rng.random(num) < share, rng.random(num) < disputed
    order, lost = rng.random(num), rng.random(num) < losing
    traffic = Traffic(
        score=np.ones(num), asked=asked, probability=np.full(num, share), disagrees=disagrees, floor=share
    )
    shown = np.flatnonzero(asked & disagrees)
    shown = shown[np.argsort(order[shown])]

    def certified(number: int) -> bool:
        answered = np.zeros(num, dtype=bool)
        answered[shown[:number]] = True
        labelled = LabelledTraffic(
            traffic=traffic,
            threshold=0.0,
            drawn=asked & disagrees,
            label_probability=np.ones(num),
            answered=answered,
            lost=lost,
            order=order,
            floor=share,
        )
        return LabelledTest(labelled.units, EPSILON, delta).certified

    needed = bisect.bisect_left(range(len(shown) + 1), True, key=certified)
    return float(needed) if needed <= len(shown) else math.inf


def _binomial_labels(regret: float, delta: float) -> int:
    """Uniform labels with which the exact test passes in half of all draws."""
    number = 100
    while binom.cdf(_affordable(number, delta), number, regret) < 0.5:
        number += 10
    return number


def _affordable(number: int, delta: float) -> int:
    """The most losses among `number` labels that refute a loss of epsilon; -1: not even none."""
    most = int(binom.ppf(delta, number, EPSILON))
    return most if binom.cdf(most, number, EPSILON) <= delta else most - 1

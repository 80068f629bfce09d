"""Quality of a gate and of a policy, measured on rows that did not choose them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.metrics import routing
from kcm.metrics.intervals import Interval, accuracy_interval, paired_difference


@dataclass(frozen=True)
class RouterQuality:
    """How well a gate score orders rows, for all thresholds together; None if a figure is undefined."""

    small_accuracy: float
    large_accuracy: float
    area: float
    apgr: float | None
    auroc: float | None
    oracle_accuracy: float
    oracle_call_rate: float


@dataclass(frozen=True)
class RouteQuality:
    """Quality of a route; `difference` is cascade minus large-only accuracy on the same rows."""

    num_rows: int
    call_rate: float
    calls_saved: float
    cost_saved: float | None
    small: Interval
    large: Interval
    cascade: Interval
    difference: Interval


@dataclass(frozen=True)
class OutOfScopeQuality:
    """Rows that have none of the labels: the share escalated, and the share answered correctly."""

    num_rows: int
    escalated: float
    accuracy: float


@dataclass(frozen=True)
class LabelQuality:
    """Rows of one label; `mistaken_for` is the most frequent wrong answer of the small model, with its row count."""

    label: int
    num_rows: int
    small_accuracy: float
    large_accuracy: float
    cascade_accuracy: float
    calls_saved: float
    kept_wrong: int
    mistaken_for: tuple[int, int] | None


def router_quality(rows: ScoredOutcomes) -> RouterQuality:
    """Measure a gate score; the AUROC is for the event `the small model is right`. Raises DataError without rows."""
    frontier = Frontier.of(rows)
    oracle_accuracy, oracle_call_rate = routing.oracle_router(rows.small_correct, rows.large_correct)
    return RouterQuality(
        small_accuracy=frontier.small_accuracy,
        large_accuracy=frontier.large_accuracy,
        area=frontier.area(),
        apgr=routing.apgr(frontier.call_rate, frontier.accuracy),
        auroc=routing.auroc(rows.score, rows.small_correct),
        oracle_accuracy=oracle_accuracy,
        oracle_call_rate=oracle_call_rate,
    )


def route_quality(
    rows: ScoredOutcomes, kept: ArrayLike, large_cost: ArrayLike, small_cost: ArrayLike = 0.0
) -> RouteQuality | None:
    """Measure a route that keeps the rows `kept` (bool [N]); costs as in `kcm.metrics.routing.cost_saved`.

    None without rows.
    """
    kept_N = np.asarray(kept, dtype=bool)
    cascade_N = rows.cascade_correct(kept_N)
    small = accuracy_interval(rows.small_correct, rows.group)
    large = accuracy_interval(rows.large_correct, rows.group)
    cascade = accuracy_interval(cascade_N, rows.group)
    # If nothing is kept, cascade and large model are the same: the difference is exactly 0, not an estimate.
    no_difference = Interval(0.0, 0.0, 0.0) if len(kept_N) and not kept_N.any() else None
    difference = no_difference or paired_difference(cascade_N, rows.large_correct, rows.group)
    if small is None or large is None or cascade is None or difference is None:
        return None
    return RouteQuality(
        num_rows=len(rows),
        call_rate=float((~kept_N).mean()),
        calls_saved=float(kept_N.mean()),
        cost_saved=routing.cost_saved(kept_N, large_cost, small_cost),
        small=small,
        large=large,
        cascade=cascade,
        difference=difference,
    )


def out_of_scope_quality(rows: ScoredOutcomes, kept: ArrayLike) -> OutOfScopeQuality | None:
    """Measure out-of-scope rows; the small model answers every `kept` row [N] wrongly. None without rows."""
    if not len(rows):
        return None
    kept_N = np.asarray(kept, dtype=bool)
    return OutOfScopeQuality(
        num_rows=len(rows),
        escalated=float((~kept_N).mean()),
        accuracy=float(rows.cascade_correct(kept_N).mean()),
    )


def label_qualities(rows: ScoredOutcomes, kept: ArrayLike, label: ArrayLike, small: ArrayLike) -> list[LabelQuality]:
    """Measure the rows of each label as `route_quality` does; `label` [N] is the right label, `small` [N] the answer.

    Labels with the most kept wrong answers come first.
    """
    kept_N, label_N, small_N = np.asarray(kept, dtype=bool), np.asarray(label), np.asarray(small)
    right_N = rows.cascade_correct(kept_N)
    qualities = []
    for number in np.unique(label_N):
        has_label_N = label_N == number
        wrong_answers, counts = np.unique(small_N[has_label_N & ~rows.small_correct], return_counts=True)
        qualities.append(
            LabelQuality(
                label=int(number),
                num_rows=int(has_label_N.sum()),
                small_accuracy=float(rows.small_correct[has_label_N].mean()),
                large_accuracy=float(rows.large_correct[has_label_N].mean()),
                cascade_accuracy=float(right_N[has_label_N].mean()),
                calls_saved=float(kept_N[has_label_N].mean()),
                kept_wrong=int((has_label_N & kept_N & ~rows.small_correct).sum()),
                mistaken_for=(int(wrong_answers[counts.argmax()]), int(counts.max())) if len(wrong_answers) else None,
            )
        )
    return sorted(qualities, key=lambda quality: (-quality.kept_wrong, quality.small_accuracy, quality.label))

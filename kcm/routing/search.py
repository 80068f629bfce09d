"""The cheapest threshold on validate rows, or why there is none to choose."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcm.cascade.frontier import Frontier, FrontierPoint
from kcm.cascade.policy import Decision
from kcm.cascade.scored import ScoredOutcomes

POINTS = 300  # of a frontier that is written down


def search(rows: ScoredOutcomes, max_loss: float) -> dict[str, Any]:
    """The route with the fewest calls among those that lose at most `max_loss` against large-only, as plain data.

    Raises DataError without rows.
    """
    frontier = Frontier.of(rows)
    best = frontier.cheapest(max_loss)
    return {
        **Decision.of(best.threshold).model_dump(mode="json"),
        "call_rate": best.call_rate,
        "accuracy": best.accuracy,
        "loss": best.loss,
        "max_loss": max_loss,
        "small_accuracy": frontier.small_accuracy,
        "large_accuracy": frontier.large_accuracy,
        "area": frontier.area(),
        "num_rows": len(rows),
        "reason": _reason(frontier, best, max_loss),
        "frontier": curve(frontier),
    }


def curve(frontier: Frontier) -> dict[str, list[float | None]]:
    """Up to `POINTS` routes from `escalate all` to `keep all`; the thresholds of these two are None."""
    last = len(frontier.scores)
    points = np.unique(np.linspace(0, last, min(last + 1, POINTS)).astype(int))
    thresholds = [float(threshold) for threshold in frontier.thresholds[points]]
    return {
        "call_rate": frontier.call_rate[points].tolist(),
        "accuracy": frontier.accuracy[points].tolist(),
        "threshold": [threshold if np.isfinite(threshold) else None for threshold in thresholds],
    }


def _reason(frontier: Frontier, best: FrontierPoint, max_loss: float) -> str:
    if best.threshold == np.inf:
        return f"every threshold loses more than {max_loss:g} on the validate rows"
    if best.threshold > -np.inf:
        return f"the threshold with the fewest calls that loses at most {max_loss:g} on the validate rows"
    if frontier.small_accuracy >= frontier.large_accuracy:
        return "the small model is at least as good as the large one on the validate rows"
    return f"to keep all loses no more than {max_loss:g} on the validate rows"

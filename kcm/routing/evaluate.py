"""Comparison of routers on a table, cross-fitted on the same folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from kcm.cascade.evaluation import router_quality
from kcm.cascade.frontier import Frontier
from kcm.cascade.scored import ScoredOutcomes
from kcm.config import Config
from kcm.metrics.intervals import resampled_mean
from kcm.metrics.routing import oracle_router
from kcm.routing.routers.head import fit_head
from kcm.routing.routers.inputs import Progress, RouterInputs, silent, word_inputs
from kcm.routing.splits import folds, unit_names
from kcm.routing.table import RoutingTable

MEASURES = ("apgr", "cpt_50", "cpt_80", "auroc", "area", "call_rate", "loss")
_COMPARED = ("apgr", "cpt_50", "cpt_80", "area", "call_rate")
ROUTER = "deferral"  # the head, which is what `fit` fits
_NEED_A_GAP = ("apgr", "cpt_50", "cpt_80")  # measured in parts of what the large model is better by

Rows = NDArray[np.intp]
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
Method = Callable[[Rows, Rows], Scores]
"""From the rows to fit on and the rows held out to scores of both; those of the former are out-of-fold."""


class EvaluateConfig(Config):
    """How routers are compared."""

    num_folds: int = Field(5, ge=2, description="Folds of the cross-fitting.")
    num_repeats: int = Field(1, ge=1, description="Times that the folds are drawn anew.")
    max_loss: float = Field(
        0.005, ge=0, lt=1, description="Accuracy that the chosen threshold may lose against large-only on fitted rows."
    )
    seed: int = Field(0, ge=0, description="Draw of the folds.")


Figures = Mapping[str, float | None]
"""The measures of one router on one fold; None where one is not defined there.

`call_rate` and `loss` are those of the threshold that was chosen on the other folds.
"""


def evaluate(
    table: RoutingTable,
    inputs: RouterInputs,
    confidence_name: str,
    config: EvaluateConfig,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Means over all folds for every router, and paired differences of the head from each.

    A measure that the table does not define (APGR where the large model is not better) is None throughout; of one that
    single folds do not define, the mean is over those that do. Raises DataError for fewer items than folds.
    """
    names, compared = unit_names(table), methods(table, inputs, confidence_name)
    found: dict[str, list[Figures]] = {name: [] for name in (*compared, "random")}
    done, total = 0, config.num_repeats * config.num_folds * len(compared)
    for repeat in range(config.num_repeats):
        fold_N = folds(names, config.num_folds, config.seed + repeat)
        for fold in range(config.num_folds):
            fit, held_out = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
            rows, held_out_rows = table.select(fit), table.select(held_out)
            for name, method in compared.items():
                fit_score, score = method(fit, held_out)
                progress("routers fitted to folds", done := done + 1, total)
                found[name].append(_fold_figures(rows.scored(fit_score), held_out_rows.scored(score), config.max_loss))
            found["random"].append(_random(rows, held_out_rows, config.max_loss))
    return _summary(table, found, config)


def methods(table: RoutingTable, inputs: RouterInputs, confidence_name: str) -> dict[str, Method]:
    """The routers that the table allows, by name; `confidence_name` is the name of the table's own score.

    `deferral`: minus the gain that the head expects of a large call. `hashed_words`: the gain, by ridge regression on
    single hashed words. `oracle`: the true correctness.
    """
    small, large = table.small_correct.astype(np.float64), table.large_correct.astype(np.float64)
    found = {ROUTER: _fitted(table, inputs, small - large)}
    if table.confidence is not None:
        found[confidence_name] = _fixed(table.confidence)
    if table.text is not None:
        found["hashed_words"] = _fitted(table, word_inputs([str(text) for text in table.text]), small - large)
    return found | {"oracle": _fixed(small - large)}


def _fitted(table: RoutingTable, inputs: RouterInputs, target_N: NDArray[np.float64]) -> Method:
    def score(fit: Rows, held_out: Rows) -> Scores:
        group = None if table.group is None else table.group[fit]
        model, left_out = fit_head(inputs.select(fit), target_N[fit], group)
        return left_out, model.estimate(inputs.select(held_out))

    return score


def _fixed(score_N: ArrayLike) -> Method:
    values = np.asarray(score_N, dtype=np.float64)

    def score(fit: Rows, held_out: Rows) -> Scores:
        return values[fit], values[held_out]

    return score


def _fold_figures(fit: ScoredOutcomes, held_out: ScoredOutcomes, max_loss: float) -> Figures:
    quality = asdict(router_quality(held_out))
    point = Frontier.of(held_out).at(Frontier.of(fit).cheapest(max_loss).threshold)
    return {name: quality.get(name) for name in MEASURES} | {"call_rate": point.call_rate, "loss": point.loss}


def _random(fit: RoutingTable, held_out: RoutingTable, max_loss: float) -> Figures:
    """The expected curve of a random router: a straight line from small to large."""
    small, large = held_out.small_correct.mean(), held_out.large_correct.mean()
    gap = float(fit.large_correct.mean() - fit.small_correct.mean())
    call_rate = max(0.0, 1 - max_loss / gap) if gap > 0 else 0.0
    in_parts = {"apgr": 0.5, "cpt_50": 0.5, "cpt_80": 0.8} if large > small else {}
    ranked = {"auroc": 0.5} if 0 < small < 1 else {}
    loss = (1 - call_rate) * (large - small)
    return in_parts | ranked | {"area": (small + large) / 2, "call_rate": call_rate, "loss": loss}


def _summary(table: RoutingTable, found: Mapping[str, Sequence[Figures]], config: EvaluateConfig) -> dict[str, Any]:
    small, large = float(table.small_correct.mean()), float(table.large_correct.mean())
    oracle = oracle_router(table.small_correct, table.large_correct)
    assert oracle is not None  # there are rows
    folds_of = {name: pd.DataFrame(rows, columns=MEASURES, dtype=np.float64) for name, rows in found.items()}
    notes = [*table.notes]
    if large > small and (gapless := int(folds_of[ROUTER]["apgr"].isna().sum())):
        num_folds = len(folds_of[ROUTER])
        notes.append(f"in {gapless} of {num_folds} folds the large model is not better: they define no PGR")
    if large <= small:
        for figures in folds_of.values():
            figures[list(_NEED_A_GAP)] = np.nan
    held_out_share = 1 / (config.num_folds - 1)
    means = {name: _means(figures, held_out_share) for name, figures in folds_of.items()}
    return {
        **{measure: means[ROUTER][measure] for measure in MEASURES},
        "oracle": asdict(oracle),
        "small_accuracy": small,
        "large_accuracy": large,
        "num_rows": len(table),
        "num_folds": config.num_folds,
        "num_repeats": config.num_repeats,
        "max_loss": config.max_loss,
        "router": ROUTER,
        "verdict": _verdict(small, large),
        "methods": means,
        "differences": {
            name: _differences(folds_of[ROUTER] - figures, held_out_share)
            for name, figures in folds_of.items()
            if name != ROUTER
        },
        "notes": notes,
    }


def _verdict(small: float, large: float) -> str:
    if large > small:
        return "the large model is better: route"
    compared = "as good as" if small == large else "better than"
    return f"the small model is {compared} the large one: never escalate; PGR is not defined"


def _means(figures: pd.DataFrame, held_out_share: float) -> dict[str, Any]:
    """Mean of every measure, and its 95% intervals; NaN marks a fold that does not define one."""
    known = {name: figures[name].dropna() for name in MEASURES}
    intervals = {name: resampled_mean(values, held_out_share) for name, values in known.items()}
    return {
        **{name: float(values.mean()) if len(values) else None for name, values in known.items()},
        "intervals": {name: found and [found.low, found.high] for name, found in intervals.items()},
    }


def _differences(differences: pd.DataFrame, held_out_share: float) -> dict[str, Any]:
    """Router less another, fold by fold."""
    intervals = {name: resampled_mean(differences[name].dropna(), held_out_share) for name in _COMPARED}
    return {
        name: found and {"estimate": found.estimate, "interval": [found.low, found.high]}
        for name, found in intervals.items()
    }

"""Routers on the same folds: RouteLLM's figures, and nothing undefined where the large model is no better."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from kcm.routing.evaluate import EvaluateConfig, evaluate
from kcm.routing.routers.inputs import RouterInputs
from kcm.routing.splits import folds, unit_names
from kcm.routing.table import RoutingTable


def table(small: np.ndarray, large: np.ndarray, confidence: np.ndarray) -> RoutingTable:
    names = np.array([f"row {n}" for n in range(len(small))], dtype=object)
    return RoutingTable(
        name=names,
        item=names,
        small_correct=small,
        large_correct=large,
        large_error=small & False,
        confidence=confidence,
    )


def drawn(num_rows: int, large: float = 0.95, seed: int = 0) -> RoutingTable:
    rng = np.random.default_rng(seed)
    confidence = rng.random(num_rows)
    return table(rng.random(num_rows) < confidence, rng.random(num_rows) < large, confidence)


def compare(rows: RoutingTable, **config: Any) -> dict[str, Any]:
    assert rows.confidence is not None
    empty = np.zeros((len(rows), 0))
    inputs = RouterInputs(rows.confidence[:, None], empty, csr_array(empty), csr_array(empty))
    return evaluate(rows, inputs, "confidence", EvaluateConfig(**config))


def routellm_apgr(small: np.ndarray, large: np.ndarray, confidence: np.ndarray) -> float:
    """Equation 4 of arXiv 2406.18665 as a sum over all call rates k/N, by sending the k least sure rows."""
    order = np.argsort(confidence)
    accuracy = [(large[order[:k]].sum() + small[order[k:]].sum()) / len(small) for k in range(len(small) + 1)]
    recovered = (np.array(accuracy) - small.mean()) / (large.mean() - small.mean())
    return float((recovered[1:] + recovered[:-1]).sum() / 2 / len(small))


def test_the_figures_of_plain_confidence_are_routellms_over_the_folds() -> None:
    rows = drawn(200)
    result = compare(rows, num_folds=2, num_repeats=2)
    expected = []
    for repeat in range(2):
        fold_N = folds(unit_names(rows), 2, repeat)
        for fold in range(2):
            at = fold_N == fold
            expected.append(routellm_apgr(rows.small_correct[at], rows.large_correct[at], rows.confidence[at]))  # type: ignore[index]
    assert result["methods"]["confidence"]["apgr"] == pytest.approx(np.mean(expected))


def test_every_router_is_measured_and_the_oracle_is_above_all() -> None:
    result = compare(drawn(600))
    apgr = {name: figures["apgr"] for name, figures in result["methods"].items()}
    assert set(apgr) == {"deferral", "confidence", "oracle", "random"}
    assert apgr["random"] == 0.5 < apgr["deferral"] < apgr["oracle"] == max(apgr.values())
    assert result["apgr"] == apgr["deferral"]
    assert result["methods"]["random"]["cpt_80"] == pytest.approx(0.8)
    assert result["oracle"]["call_rate"] == pytest.approx(result["oracle"]["accuracy"] - result["small_accuracy"])
    difference = result["differences"]["random"]["apgr"]
    assert difference["interval"][0] < difference["estimate"] < difference["interval"][1]


def test_upside_down_confidence_is_turned_by_what_is_learned() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(800)
    result = compare(table(rng.random(800) < 1 - confidence, np.ones(800, dtype=bool), confidence))
    assert result["methods"]["confidence"]["apgr"] < 0.4
    assert result["apgr"] > 0.6
    assert result["differences"]["confidence"]["apgr"]["interval"][0] > 0


@pytest.mark.parametrize(
    ("small", "large"),
    [(0.9, 0.5), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0)],
    ids=["better", "all right", "all wrong", "opposite"],
)
def test_a_small_model_that_is_no_worse_is_never_escalated(small: float, large: float) -> None:
    rng = np.random.default_rng(0)
    rows = table(rng.random(300) < small, rng.random(300) < large, rng.random(300))
    result = compare(rows, num_folds=2)
    assert (result["apgr"], result["cpt_50"], result["cpt_80"]) == (None, None, None)
    assert result["verdict"].endswith("never escalate; PGR is not defined")
    assert result["call_rate"] == 0
    json.dumps(result, allow_nan=False)


def test_a_threshold_is_chosen_on_fitted_rows_alone() -> None:
    result = compare(drawn(2000), num_folds=2, max_loss=0.02)
    assert 0 < result["call_rate"] < 1
    assert abs(result["loss"] - 0.02) < 0.03

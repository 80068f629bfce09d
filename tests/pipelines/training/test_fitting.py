"""Every validate row has a score; of more rows than fit, a gate is fitted on whole units, and scores others as new."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kcm.cascade.gate import fit_gate
from kcm.cascade.novelty import Novelty
from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes
from kcm.cascade.reference import Reference
from kcm.metrics.calibration import fit_temperature
from pipelines.batch.outcome_table import OutcomePart
from pipelines.training.fitting import FEWEST_CLASSES, fitted_on

NUM_ROWS, SIZE = 600, 250
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(NUM_ROWS, 4)).astype(np.float32)
LABEL = (FEATURES[:, 0] + RNG.normal(size=NUM_ROWS) > 0).astype(int)
LOGITS = np.stack([-FEATURES[:, 0], FEATURES[:, 0]], 1).astype(np.float64)
LARGE_RIGHT = RNG.random(NUM_ROWS) < 0.9
GROUP = np.array([f"document {row // 3}" if row % 2 else None for row in range(NUM_ROWS)], dtype=object)


NAMES = {"task": "task", "split": "validate"}


def validate_rows(label: np.ndarray, num_labels: int, **columns: Any) -> OutcomeTable:
    """Rows with these labels, which the large model answers rightly, and without a group."""
    nothing = np.zeros(len(label), dtype=bool)
    return OutcomeTable(
        **{
            "id": np.array([f"row {row}" for row in range(len(label))], dtype=object),
            **{name: np.full(len(label), value, dtype=object) for name, value in NAMES.items()},
            **dict.fromkeys(("label", "large_label"), label),
            "group": np.full(len(label), None),
            "large_probabilities": np.full((len(label), num_labels), np.nan),
            "large_cost": np.ones(len(label)),
            "large_error": nothing,
            "label_names": tuple(f"label {number}" for number in range(num_labels)),
            **columns,
        }
    )


LARGE_LABEL = np.where(LARGE_RIGHT, LABEL, 1 - LABEL)
ANSWERS = {"large_label": LARGE_LABEL}
TABLE = validate_rows(LABEL, 2, group=GROUP, judge_logits=LOGITS, small_logits=LOGITS * 2, **ANSWERS)


def parts() -> Iterator[OutcomePart]:
    for start in range(0, NUM_ROWS, SIZE):
        rows = slice(start, start + SIZE)
        found = TABLE.select(np.arange(NUM_ROWS)[rows])
        yield OutcomePart(found, FEATURES[rows], np.zeros(len(found)), 2)


def fitted(gate: str, limit: int) -> tuple[Any, ScoredOutcomes]:
    more = {"num_labels": 2, "reference": Reference.nothing(), "seed": 0}
    found, rows, novel = fitted_on(parts, NUM_ROWS, gate, limit=limit, **more)
    assert novel is None  # two classes are too few to leave one out
    return found, rows


@pytest.mark.parametrize("gate", ["confidence", "signals"])
def test_rows_that_fit_have_the_scores_of_the_whole_table(gate: str) -> None:
    expected = fit_gate(
        gate,
        fit_temperature(TABLE.judge_logits, TABLE.label),
        TABLE,
        FEATURES,
        num_labels=2,
        reference=Reference.nothing(),
    )
    found, rows = fitted(gate, NUM_ROWS)
    np.testing.assert_array_equal(rows.score, expected.scores)
    np.testing.assert_array_equal(rows.small_correct, TABLE.small_correct)
    np.testing.assert_array_equal(rows.group, TABLE.group)
    assert found.temperature == expected.gate.temperature


def test_whole_units_are_fitted_and_the_rest_scored_as_new() -> None:
    """Promise: of more rows whole units are fitted on and the rest is scored as new."""
    gate, rows = fitted("signals", NUM_ROWS // 3)
    as_new = np.concatenate([part.scores(gate) for part in parts()])
    is_sampled = rows.score != as_new  # those are out of fold
    assert 0.2 < is_sampled.mean() < 0.5
    for document in set(GROUP) - {None}:
        assert len(set(is_sampled[document == GROUP])) == 1
    assert len(rows) == NUM_ROWS


def test_rows_are_scored_without_their_class_from_ten_on() -> None:
    """Promise: rows are scored without their own class where there are ten."""
    count, num_labels = 60, FEWEST_CLASSES
    rng, label = np.random.default_rng(0), np.arange(60) % FEWEST_CLASSES
    logits = rng.normal(size=(count, num_labels)) + 3 * np.eye(num_labels)[label]
    many = validate_rows(label, num_labels, judge_logits=logits, small_logits=logits)
    part = OutcomePart(many, np.zeros((count, 1)), np.zeros(count), num_labels)

    def without(judge: Tensor, small: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(each.scatter(1, labels[:, None], -torch.inf) for each in (judge, small))

    more = {"num_labels": num_labels, "reference": Reference.nothing(), "seed": 0}
    novelty = Novelty(np.eye(num_labels), np.full(num_labels, 3.0), np.zeros(num_labels))
    more |= {"without_own_class": without, "novelty": novelty}
    gate, rows, novel = fitted_on(lambda: [part], count, "signals", **more)
    assert novel is not None
    own = np.where(np.eye(num_labels, dtype=bool)[label], -np.inf, logits)
    np.testing.assert_allclose(novel.scores, gate.score(np.zeros((count, 1)), own, own))
    assert novel.scores.mean() < rows.score.mean()
    np.testing.assert_allclose(novel.distances, novelty.distances(own))

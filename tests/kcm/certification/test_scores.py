"""`kcm.certify`: a threshold on any score, certified on all rows, from arrays."""

from __future__ import annotations

import doctest
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

import kcm
from kcm.certification import scores
from kcm.certification.ledger import Ledger, question_delta


def draw(seed: int, num_rows: int = 800) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, and who is right: the small model loses where its score is low."""
    rng = np.random.default_rng(seed)
    score = rng.random(num_rows)
    return score, rng.random(num_rows) < 0.6 + 0.4 * score, rng.random(num_rows) < 0.9


def binomial(score: np.ndarray, lost: np.ndarray, max_loss: float, delta: float) -> float:
    """Share that the exact binomial test keeps, by trying every threshold from the strictest on."""
    kept = 0
    for threshold in sorted({*score.tolist(), -math.inf}, reverse=True):
        if binom.cdf((lost & (score > threshold)).sum(), len(score), max_loss) > delta:
            break
        kept = int((score > threshold).sum())
    return kept / len(score)


@pytest.mark.parametrize("max_loss", [0.02, 0.05])
def test_it_keeps_what_an_exact_binomial_keeps(max_loss: float) -> None:
    """On all rows, without a split: never less than the exact binomial test on the same rows, and never more."""
    for seed in range(20):
        score, small, large = draw(seed)
        found = kcm.certify(score, small, large, max_loss=max_loss)
        assert found.kept == binomial(score, large & ~small, max_loss, 0.1)


def test_the_promise_is_broken_at_most_delta() -> None:
    """The true loss of a threshold t is .9 times the integral of .4 (1 - s) over s in (t, 1)."""
    broken = 0
    for seed in range(400):
        threshold = kcm.certify(*draw(seed), max_loss=0.05, delta=0.2).threshold
        start = 1.0 if threshold is None else max(threshold, 0.0)
        broken += 0.9 * 0.4 * (1 - start) ** 2 / 2 > 0.05
    assert 10 < broken < 400 * 0.2 + 3 * math.sqrt(400 * 0.2 * 0.8)


def test_keep_all_and_escalate_all() -> None:
    """Without a loss all rows are kept; with too few rows, or losses at the top, none is."""
    score = np.linspace(0, 1, 300)
    every = kcm.certify(score, np.ones(300))
    assert (every.threshold, every.kept) == (-math.inf, 1.0)
    assert every.bound == pytest.approx(1 - 0.1 ** (1 / 300))
    for none in (kcm.certify(score * 0, np.zeros(300)), kcm.certify(score[:50], np.ones(50)), kcm.certify([], [])):
        assert (none.threshold, none.kept, none.bound, none.valid) == (None, 0.0, 0.0, True)


def test_without_large_correct_the_large_model_is_right() -> None:
    """`small_correct` is then agreement with the large model."""
    score, small, _ = draw(0)
    assert kcm.certify(score, small) == kcm.certify(score, small, np.ones(len(score)))


def test_a_group_is_one_unit() -> None:
    """Copies of rows in one group certify no more than the rows alone; without groups they would."""
    score, small, large = (np.tile(column, 8) for column in draw(0, 100))
    groups = [f"row {number % 100}" for number in range(800)]
    with pytest.warns(UserWarning, match="700 of 800 rows repeat another row: rows taken as independent"):
        alone = kcm.certify(score, small, large)
    assert alone.fewest_units <= 800
    assert alone.note == f"{scores.NOT_GROUPED}; {scores.NOT_RECORDED}"
    found = kcm.certify(score, small, large, groups=groups)
    assert (found.num_units, found.threshold) == (100, None)
    assert kcm.certify(score, small, large, groups=[None] * 800).num_units == 800


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan score": ({"score": [0.1, math.nan]}, "score must be finite: row 1"),
    "infinite score": ({"score": [math.inf, 0.1]}, "score must be finite: row 0"),
    "nan small": ({"small_correct": [1, math.nan]}, "small_correct must be finite: row 1"),
    "nan large": ({"large_correct": [math.nan, 1]}, "large_correct must be finite"),
    "share": ({"small_correct": [0.5, 1]}, "small_correct must be 0 or 1: row 0"),
    "length": ({"large_correct": [1]}, "large_correct must have 2 rows"),
    "matrix": ({"score": [[0.1, 0.2]]}, "score must have one dimension"),
    "groups": ({"groups": ["a"]}, "groups has 1 rows"),
    "masked": ({"score": np.ma.array([0.1, 0.2], mask=[0, 1])}, "score has masked rows"),
    "masked outcomes": ({"small_correct": np.ma.array([1, 0], mask=[0, 1])}, "small_correct has masked rows"),
    "another index": (
        {"score": pd.Series([0.1, 0.2]), "small_correct": pd.Series([1, 0], index=[1, 0])},
        "small_correct has another index than score",
    ),
    "another index of groups": (
        {"score": pd.Series([0.1, 0.2]), "groups": pd.Series(["a", "b"], index=[1, 2])},
        "groups has another index than score",
    ),
    "max_loss": ({"max_loss": 2}, "max_loss must lie between 0 and 1, not 2"),
    "delta": ({"delta": 0.0}, "delta must lie between 0 and 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(name: str) -> None:
    """ValueError names the argument and the row."""
    more, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        kcm.certify(**{"score": [0.1, 0.2], "small_correct": [True, False], **more})


def test_a_ledger_charges_each_other_look(tmp_path: Path) -> None:
    """The identical call is the same look; other outcomes, scores or losses are the next one."""
    score, small, large = draw(0)
    looks = [
        kcm.certify(score, small, large, ledger=tmp_path),
        kcm.certify(score, small, large, ledger=Ledger(tmp_path)),
        kcm.certify(score, large, small, ledger=tmp_path),
        kcm.certify(-score, small, large, ledger=str(tmp_path)),
        kcm.certify(score, small, large, max_loss=0.03, ledger=tmp_path),
    ]
    assert [found.look for found in looks] == [1, 1, 2, 3, 4]
    assert [found.delta for found in looks] == [question_delta(0.1, v) for v in (1, 1, 2, 3, 4)]
    assert {found.note for found in looks} == {scores.NOT_GROUPED}


def test_tables_are_told_apart_by_their_groups(tmp_path: Path) -> None:
    """Arrays with other groups are another question; arrays without groups belong to the whole ledger."""
    score, small, large = draw(0, 300)

    def look(start: int) -> int | None:
        groups = [f"review {number}" for number in range(start, start + 300)]
        return kcm.certify(score, small, large, groups=groups, ledger=tmp_path).look

    assert [look(0), look(1000), look(100)] == [1, 1, 2]
    assert kcm.certify(score, small, large, ledger=tmp_path).look == 4


def test_without_a_ledger_the_look_is_not_recorded() -> None:
    """The certificate says so."""
    found = kcm.certify(*draw(0))
    assert (found.look, found.delta) == (None, 0.1)
    assert "not recorded" in found.note


def test_the_example_in_the_docstring_holds() -> None:
    """The example prints what it says."""
    assert doctest.testmod(scores).failed == 0


def test_it_needs_numpy_and_scipy_alone() -> None:
    """A call imports neither pandas, torch nor pyarrow, with groups and a ledger too."""
    source = """
import sys, tempfile
import kcm
with tempfile.TemporaryDirectory() as folder:
    kcm.certify([.1] * 200, [1] * 200, [1] * 200, groups=["a", "b"] * 100, ledger=folder)
print(sorted({"pandas", "torch", "pyarrow", "sklearn", "duckdb", "ray", "mlflow"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]


def test_scores_that_repeat_by_chance_are_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Scores of few digits, and a judge that is often quite sure, say nothing about rows of one user."""
    score, small, large = draw(0)
    kcm.certify(np.round(score, 2), small, large)
    kcm.certify(np.minimum(1, score + 0.5), small, large)
    assert not recwarn.list
    aligned = pd.Series(score), pd.Series(small), pd.Series(large)
    assert kcm.certify(*aligned) == kcm.certify(score, small, large)

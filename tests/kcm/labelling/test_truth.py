"""Accuracy by people's labels: honest intervals, apart from the promise, and a column that is read as people write."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.labelling.certificate import Labelled
from kcm.labelling.label import LabelledTable, label
from kcm.labelling.label_list import LabelList
from kcm.labelling.purchases import FAILED, Guess
from kcm.labelling.rounds import Watcher
from kcm.labelling.texts import Texts
from kcm.labelling.truth import NO_LABEL, difference_estimate, measured, truth_codes
from kcm.large.base import Estimate
from kcm.metrics.intervals import accuracy_interval
from tests.kcm.labelling.test_rounds import Asked, Counting

NAMES = ("spam", "ham")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def calibrated(rng: np.random.Generator, accuracy: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """3,000 rows with the probability that each is right."""
    sure = rng.beta(accuracy, 1 - accuracy, 3000)
    return rng.random(3000) < sure, sure


def useless(rng: np.random.Generator, accuracy: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """3,000 rows with probabilities that say nothing, and are far too high."""
    return rng.random(3000) < accuracy, rng.beta(99, 1, 3000)


@pytest.mark.parametrize("control", [calibrated, useless])
@pytest.mark.parametrize(("accuracy", "num_rows"), [(0.97, 60), (0.95, 100), (0.8, 100), (0.8, 1500)])
def test_the_interval_covers_as_often_as_it_says(
    control: Callable[[np.random.Generator, float], tuple[NDArray[np.bool_], NDArray[np.float64]]],
    accuracy: float,
    num_rows: int,
) -> None:
    """In 400 samples a 95% interval holds the table's accuracy in 95% of them, up to three standard errors."""
    rng = np.random.default_rng(num_rows)
    right, sure = control(rng, accuracy)
    covered = 0
    for _ in range(400):
        sample = rng.choice(3000, num_rows, replace=False)
        found = difference_estimate(right[sample], sure[sample], sure)
        covered += found.low <= right.mean() <= found.high
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400) <= covered / 400


def test_a_good_control_narrows_and_a_useless_one_does_not() -> None:
    """With calibrated probabilities the interval is at most four fifths of the plain one; without, about as wide."""
    rng = np.random.default_rng(1)
    ratios = []
    for control in (calibrated, useless):
        right, sure = control(rng, 0.85)
        pairs = []
        for _ in range(50):
            sample = rng.choice(3000, 200, replace=False)
            found, plain = difference_estimate(right[sample], sure[sample], sure), accuracy_interval(right[sample])
            assert plain is not None
            pairs.append((found.high - found.low, plain.high - plain.low))
        ratios.append(np.divide(*np.mean(pairs, 0)))
    assert ratios[0] < 0.8
    assert 0.9 < ratios[1] < 1.01


def test_all_rows_right_is_no_certainty() -> None:
    """Thirty right rows of 3,000 leave an interval; all rows of a table leave none."""
    sure = np.linspace(0.5, 1, 3000)
    found = difference_estimate(np.ones(30, dtype=bool), sure[::100], sure)
    assert found.high == 1
    assert 0.8 < found.low < 0.95
    assert difference_estimate(sure > 0.7, sure, sure).low == pytest.approx((sure > 0.7).mean())


def test_case_spaces_and_numbers_are_read_as_people_mean() -> None:
    frame = pd.DataFrame({"t": [" Spam", "HAM ", "", None, "spam"], "n": [1, 0, None, None, 1]})
    unit = np.array([0, 1, 2, 3, -1])
    assert truth_codes(frame, "t", NAMES, unit).tolist() == [0, 1, NO_LABEL, NO_LABEL, NO_LABEL]
    assert truth_codes(frame, "n", ("0", "1"), unit).tolist() == [1, 0, NO_LABEL, NO_LABEL, NO_LABEL]


def test_values_that_are_not_labels_are_named() -> None:
    """One line with the column, how many rows, and the values."""
    frame = pd.DataFrame({"t": ["spam", "S.P.A.M", "eggs", "eggs"], "empty": [None] * 4})
    rows = np.arange(4)
    with pytest.raises(DataError, match=r"column 't' has values that are not labels in 3 rows: 'eggs', 'S.P.A.M'"):
        truth_codes(frame, "t", NAMES, rows)
    with pytest.raises(DataError, match="no labels"):
        truth_codes(frame, "empty", NAMES, rows)
    with pytest.raises(DataError, match="truht"):
        truth_codes(frame, "truht", NAMES, rows)


def delivered() -> Labelled:
    """Six units: 0 and 1 bought, 2 failed, 3 not reached by the money, 4 and 5 answered by the small model."""
    return Labelled(
        answer_U=np.array([0, 1, 0, 0, 0, 1]),
        wrong_U=np.array([0, 0, 0.5, 0.5, 0.1, 0.1]),
        bought_U=np.arange(6) < 2,
        failed_U=np.isin(np.arange(6), [2, 3]),
        asked_U=np.arange(6) < 3,
        guess=Guess(np.zeros(6, np.int64), np.zeros(6)),
        taught_U=np.arange(6) < 2,
        num_rows=8,
        allowed=1,
        differ=2,
    )


def test_only_missing_answers_are_bought_once_a_text() -> None:
    """Unit 4 stands in two rows: it is asked once. A failed unit is not asked again, and its answer is wrong."""
    asked: list[int] = []

    def ask(units: NDArray[np.int64]) -> NDArray[np.int64]:
        asked.extend(units.tolist())
        return np.where(units == 5, FAILED, 1)

    unit = np.array([0, 1, 2, 3, 4, 4, 5, -1])
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    found = measured(truth, unit, delivered(), Asked(ask))
    assert asked == [3, 4, 5]
    assert (found.rows, found.bought) == (7, 3)
    assert found.labels.estimate == pytest.approx(3 / 7)  # units 0, 2, 5
    assert found.llm is not None
    assert found.llm.estimate == pytest.approx(4 / 7)  # units 0, 3, and 4 twice


def test_without_money_only_the_labels_are_measured() -> None:
    oracle = Counting(np.zeros(6, dtype=np.int64), calls=2)
    found = measured(np.ones(6, dtype=np.int64), np.arange(6), delivered(), oracle)
    assert found.llm is None
    assert found.bought == oracle.asked.sum() == 0


def table(num_rows: int = 1500) -> pd.DataFrame:
    """Texts of two kinds; the column `llm` errs in 5%, the column `people` has 150 right labels."""
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 2, num_rows)
    words = np.array([["offer win prize", "meeting notes team"], ["cash click winner", "project agenda lunch"]])
    frame = pd.DataFrame({"text": [f"{words[rng.integers(2), k]} {n}" for n, k in enumerate(kind)]})
    names = np.array(NAMES)
    frame["llm"] = names[np.where(rng.random(num_rows) < 0.05, 1 - kind, kind)]
    people = pd.Series(names[kind], dtype=object)
    people[rng.permutation(num_rows)[150:]] = None
    return frame.assign(people=people)


class Bought(Watcher):
    """Counts answers; remembers how many texts have people's labels."""

    def __init__(self) -> None:
        self.count = self.compared = 0

    def start(self, texts: Texts, labels: LabelList, estimates: Sequence[Estimate | None], num_compared: int) -> None:
        self.compared = num_compared

    def bought(self, count: int, spent: float) -> None:
        self.count = count


def test_truth_changes_neither_labels_nor_promise() -> None:
    """The same labels, purchases and certificate with a truth column as without; both accuracies near the truth."""

    def run(**more: str) -> tuple[LabelledTable, Bought]:
        watcher = Bought()
        found = label(
            table(), answers="llm", text="text", encoder="words", target=0.9, delta=0.1, watcher=watcher, **more
        )
        return found, watcher

    (plain, first), (found, second) = run(), run(truth="people")
    pd.testing.assert_frame_equal(plain.frame, found.frame)
    assert plain.certificate == found.certificate
    assert plain.accuracies is None
    assert found.accuracies is not None
    assert found.accuracies.llm is not None
    assert second.compared == found.accuracies.rows == 150
    assert second.count - first.count == found.accuracies.bought > 0
    assert found.accuracies.llm.low < 0.95 < found.accuracies.llm.high


def test_a_wrong_truth_column_costs_nothing() -> None:
    asked: list[str] = []

    def llm(texts: list[str]) -> list[str]:
        asked.extend(texts)
        return ["spam"] * len(texts)

    with pytest.raises(DataError, match="not labels"):
        label(table(), labels=NAMES, llm=llm, text="text", truth="text", encoder="words")
    assert asked == []

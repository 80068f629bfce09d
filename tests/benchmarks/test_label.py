"""The figures of `kcm label` count what they claim to count: tables, broken promises, the boundary, calibration."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import label_boundary
from benchmarks.label import merged, num_broken, spent
from benchmarks.label_boundary import (
    LABELLED,
    Job,
    Oracle,
    World,
    at_boundary,
    broken,
    drawn,
    is_broken,
    measured,
    placed,
)
from benchmarks.label_tables import clinc, recorded, simulated
from benchmarks.label_texts import output_labels
from benchmarks.rivals.tables import scored, selection, summary
from kcm.labelling.purchases import FAILED


def test_rows_measured_again_replace_earlier_ones() -> None:
    """Promise: a table can be measured alone, and the rows of other tables, targets and shares of delta stay."""
    names = [("a", 0.9, "whole"), ("a", 0.95, "whole"), ("a", 0.9, "first look"), ("b", 0.9, "whole")]
    earlier = [{"table": table, "target": target, "spends": spends, "calls": 1} for table, target, spends in names]
    again = {"table": "a", "target": 0.9, "spends": "whole", "calls": 2}
    assert merged(earlier, [again]) == [*earlier[1:], again]


@pytest.mark.parametrize(
    ("name", "label"), [("bargain/reviews.csv", "1"), ("supg/onto.csv", "1.0"), ("supg/imagenet.csv.gz", "True")]
)
def test_scored_tables_load(tmp_path: Path, name: str, label: str) -> None:
    """The three spellings of a positive label are 1, whatever other columns there are; the largest is compressed."""
    file = tmp_path / name
    file.parent.mkdir()
    pd.DataFrame({"id": [0, 1], "label": [label, "0"], "proxy_score": [0.75, 1e-9]}).to_csv(file)
    table = scored(tmp_path, file.name.partition(".")[0])
    assert table.labels.tolist() == [1, 0]
    assert table.scores.tolist() == [0.75, 1e-9]


def test_recorded_tables_load(tmp_path: Path) -> None:
    """Labels are what people gave, not what a model answered; an empty answer stays an empty answer."""
    (tmp_path / "llm").mkdir()
    rows = {"text": ["a", "b", "c"], "gold": ["1", "0", "0"], "gpt41": ["1", "", "none"]}
    pd.DataFrame(rows).to_csv(tmp_path / "llm" / "technology.csv", index=False)
    table = recorded(tmp_path, "technology")
    assert table.labels == ("0", "1")
    assert table.answers.tolist() == ["1", "", "none"]


def test_clinc_rows_follow_the_seed(tmp_path: Path) -> None:
    """Rows come from all splits within scope, each once."""
    (tmp_path / "clinc150").mkdir()
    file = tmp_path / "clinc150" / "data_full.json"
    file.write_text('{"train": [["a", "x"]], "val": [["b", "y"]], "test": [["c", "x"]], "oos_test": [["d", "oos"]]}')
    assert sorted(clinc(tmp_path).frame["text"]) == ["a", "b", "c"]
    assert clinc(tmp_path, num_rows=2).frame.equals(clinc(tmp_path, num_rows=2).frame)


@pytest.mark.parametrize(("by_intent", "confused"), [(False, 20), (True, 1)])
def test_simulated_oracle_confuses_labels(by_intent: bool, confused: int) -> None:
    """5% of the answers are one fixed wrong label per label, or those of all rows of some labels; 2% are any label."""
    gold = pd.Series(np.repeat([f"label {number:02}" for number in range(20)], 2000))
    answers = pd.Series(simulated(gold, np.random.default_rng(0), by_intent=by_intent))
    wrong = answers[answers != gold]
    assert len(wrong) / len(gold) == pytest.approx(0.05 + 0.02 * 0.95, abs=0.005)
    commonest = [wrong[gold == label].value_counts().iloc[0] for label in gold.unique()]
    assert sum(count > 50 for count in commonest) == confused


def test_broken_promises_are_counted() -> None:
    """A run that differs on just what it promised keeps its promise, also if the share was rounded down."""
    assert num_broken([5, 6, 0], [0.95, 0.95, 1.0], 100) == 1
    assert num_broken([85, 86], [0.900584, 0.900584], 855) == 1


def test_a_first_look_spends_less() -> None:
    """The ledger leaves a fifth of delta to later looks."""
    assert spent(0.1) == {"whole": 0.1, "first look": pytest.approx(0.08)}


def test_selections_are_judged() -> None:
    """Precision and recall of a returned set, and how many sets miss the promise."""
    run = selection(np.array([1, 1, 0, 0]), np.array([0, 2]), bought=3)
    assert run == {"precision": 0.5, "recall": 0.5, "returned": 2, "bought": 3}
    assert summary([run, run | {"precision": 1.0}], "precision", 0.9)["broken"] == 1


@pytest.mark.parametrize("shape", label_boundary.SHAPES)
def test_boundary_has_one_error_too_many(shape: str) -> None:
    """A + x* + 1 errors among the ranked rows, none elsewhere, and no row changes that was asked before."""
    num_rows = 40
    world = World(np.linspace(0.01, 0.3, num_rows), np.ones(num_rows, int), np.zeros(num_rows, int))
    asked = np.arange(num_rows) % 4 == 0
    dry = Job(world.answers, 5, ranked=20, drawn=6, afforded=1, allowed=3, copies=1, open=~asked)
    answers = at_boundary(world, dry, shape, np.random.default_rng(0))
    assert (answers[asked] == world.answers[asked]).all()
    errors = np.flatnonzero(~asked & (answers == 0))
    assert len(errors) == 3 + 1 + 1
    assert set(errors) <= set(np.flatnonzero(~asked)[:20])


def test_boundary_counts_failures_as_errors() -> None:
    """A row without an answer is one of the A + x* + 1 errors."""
    world = World(np.linspace(0.01, 0.3, 10), np.ones(10, int), np.array([FAILED] * 2 + [1] * 8))
    dry = Job(world.answers, 2, ranked=10, drawn=3, afforded=0, allowed=2, copies=1, open=np.ones(10, dtype=bool))
    answers = at_boundary(world, dry, "spread", np.random.default_rng(0))
    assert (answers == FAILED).sum() == 2
    assert (answers == 0).sum() == 1


def test_broken_tables_weigh_copies() -> None:
    """One wrong label of a text with 60 copies is 60 wrong rows."""
    world = World(np.zeros(2), np.array([60, 1]), np.ones(2, int))
    found = Job(np.array([1, 1]), 59, 2, 1, 0, 59, 60, np.ones(2, dtype=bool))
    assert is_broken(found, world, np.array([0, 1]))
    assert not is_broken(found, world, np.array([1, 0]))


def test_errors_stay_in_the_ranking() -> None:
    """Every shape places so many errors, all at different ranks."""
    for shape in label_boundary.SHAPES:
        ranks = placed(shape, 30, 7, np.random.default_rng(1))
        assert len(set(ranks.tolist())) == 7
        assert 0 <= ranks.min() <= ranks.max() < 30


def test_oracle_knows_what_was_asked() -> None:
    """Rows are open until a call has asked for them; a failure is None."""
    oracle = Oracle(np.array([0, FAILED, 1]))
    assert oracle(np.array([0, 1])) == [0, None]
    assert oracle.open_before(0).all()
    assert oracle.open_before(1).tolist() == [False, False, True]


@pytest.mark.parametrize("kind", label_boundary.KINDS)
def test_boundary_tables_are_labelled(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind goes through the library, whose draw is among open rows; every job asks for a row once."""
    monkeypatch.setattr(label_boundary, "NUM_ROWS", 200)
    world = drawn(kind, np.random.default_rng(0))
    oracle = Oracle(world.answers)
    job = LABELLED[kind](world, oracle, 0)
    assert len(job.labels) == len(job.open) == 200
    assert job.open.sum() >= job.ranked >= job.drawn
    assert not is_broken(job, world, job.labels)
    num_jobs = 2 if kind == "second test" else 1
    assert np.bincount(np.concatenate(oracle.asked)).max() == num_jobs
    broken(kind, "early", 0)


def test_boundary_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are counted by kind and by shape."""
    monkeypatch.setattr(label_boundary, "broken", lambda kind, shape, seed: kind == "ties" and seed == 0)
    rows = {row["kind"]: (row["broken"], row["tables"]) for row in measured(30)}
    assert rows["all"] == (3, 30)
    assert rows["ties"] == (3, 6)
    assert rows["early"] == (1, 10)


def test_output_is_found_by_its_labels(tmp_path: Path) -> None:
    """The labelled table is the one of all rows with a column `label`."""
    other, labelled = tmp_path / "other.csv", tmp_path / "labelled.csv"
    other.write_text("text\na\n", encoding="utf-8")
    labelled.write_text("text,label\na,x\n", encoding="utf-8")
    assert output_labels([other, labelled], 1).tolist() == ["x"]
    with pytest.raises(FileNotFoundError, match=r"other\.csv"):
        output_labels([other], 1)

"""The preview is linear discriminant analysis of the train rows, counted on validate rows, task by task."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.inputs.vectors import list_column
from kcm.tasks.shards import task_shards, write_shards
from pipelines.batch import preview as module
from pipelines.batch.preview import preview, preview_lines

DIM, LABELS = 6, 3


def rows_of(rng, split: str, label_N: np.ndarray) -> pa.Table:
    """Unit vectors about a mean of their label, which overlap."""
    means_CD = 0.7 * np.eye(LABELS, DIM)
    values_ND = means_CD[label_N] + rng.normal(scale=0.5, size=(len(label_N), DIM))
    values_ND /= np.linalg.norm(values_ND, axis=1, keepdims=True)
    return pa.table(
        {
            "split": [split] * len(label_N),
            "label": label_N,
            "features": list_column(values_ND.astype(np.float32)),
        }
    )


@pytest.fixture
def tasks(tmp_path):
    """Two tasks with train and validate rows, out of scope and unlabelled ones among them."""
    rng = np.random.default_rng(0)
    for number in range(2):
        train, validate = (
            rows_of(rng, split, np.repeat(np.arange(LABELS), count))
            for split, count in (("train", 1000), ("validate", 800))
        )
        without = rows_of(rng, "train", np.zeros(50, dtype=np.int64))
        label_N = np.where(np.arange(50) % 2, OUT_OF_SCOPE, UNLABELLED)
        without = without.set_column(1, "label", pa.array(label_N))
        write_shards(tmp_path, number, [pa.concat_tables([train, without, validate])])
    return {name: task_shards(tmp_path, number) for number, name in enumerate(("books", "films"))}


def test_it_counts_what_scikit_learn_answers_right(tasks) -> None:
    tables = {name: pa.concat_tables([pa.parquet.read_table(path) for path in paths]) for name, paths in tasks.items()}
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.01, priors=np.full(LABELS, 1 / LABELS))
    every = pa.concat_tables(tables.values()).to_pandas()
    train = every[(every["split"] == "train") & (every["label"] >= 0)]
    lda.fit(np.stack(train["features"]), train["label"])
    expected = {}
    for name, table in tables.items():
        validate = table.to_pandas().query("split == 'validate'")
        right = lda.predict(np.stack(validate["features"])) == validate["label"]
        expected[name] = (len(right), int(right.sum()))
    assert preview(tasks, LABELS) == expected
    assert all(0.5 < right / rows < 0.95 for rows, right in expected.values())


def test_many_rows_are_sampled_at_equal_distances(tasks, monkeypatch) -> None:
    read = []
    matrix = module.matrix
    monkeypatch.setattr(module, "matrix", lambda column: read.append(len(column)) or matrix(column))
    whole = preview(tasks, LABELS)
    num_whole, read[:] = sum(read), []
    monkeypatch.setattr(module, "_ROWS", 5450)  # half of the rows: every other row group
    assert preview(tasks, LABELS).keys() == whole.keys()
    assert 0 < sum(read) < num_whole


def test_it_says_nothing_of_rows_whose_covariance_would_fill_the_memory(tasks, monkeypatch) -> None:
    assert preview(tasks, LABELS)
    monkeypatch.setattr(module, "_MAX_FEATURES", 2)
    assert preview(tasks, LABELS) == {}


def test_it_says_nothing_where_nothing_can_be_computed(tmp_path) -> None:
    table = rows_of(np.random.default_rng(0), "test", np.zeros(4, dtype=np.int64))
    write_shards(tmp_path, 0, [table])
    assert preview({"books": task_shards(tmp_path, 0)}, LABELS) == {}
    assert list(preview_lines({})) == []


def test_what_is_told_names_tasks_where_there_are_several() -> None:
    assert list(preview_lines({"books": (200, 150)})) == [
        "nothing is trained yet: class means with one covariance answer 75.0% of 200 rows that it has not seen right"
    ]
    lines = list(preview_lines({f"task-{number}": (100, 90) for number in range(10)}))
    assert lines[1].startswith("  task-0 90.0%, task-1 90.0%")
    assert lines[1].endswith(" and 2 more tasks")

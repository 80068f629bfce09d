"""The preview is ridge regression on a sample of the train rows, counted on rows whose unit was left out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import cross_val_score

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.inputs.vectors import list_column
from kcm.tasks.shards import task_shards, write_shards
from pipelines.stages.preview import preview, preview_lines, right_left_out, sampled
from pipelines.store.features import feature_matrix

DIM, LABELS = 6, 3
COLUMNS = ("id", "split", "label", "features")


def rows_of(split: str, label_N: np.ndarray, seed: int = 0, group: list[str] | None = None) -> pa.Table:
    """Unit vectors about a mean of their label, which overlap."""
    rng = np.random.default_rng(seed)
    values_ND = 0.7 * np.eye(LABELS, DIM)[label_N] + rng.normal(scale=0.5, size=(len(label_N), DIM))
    values_ND /= np.linalg.norm(values_ND, axis=1, keepdims=True)
    columns = {"id": [f"{split} {seed} {row}" for row in range(len(label_N))], "split": [split] * len(label_N)}
    columns |= {"label": label_N, "features": list_column(values_ND.astype(np.float32))}
    return pa.table(columns | ({} if group is None else {"group": group}))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two tasks with train and validate rows, out of scope and unlabelled ones among them."""
    paths = []
    for number in range(2):
        train, validate = (
            rows_of(split, np.repeat(np.arange(LABELS), count), number)
            for split, count in (("train", 200), ("validate", 80))
        )
        without = rows_of("train", np.zeros(50, dtype=np.int64), 9 + number)
        without = without.set_column(2, "label", pa.array(np.where(np.arange(50) % 2, OUT_OF_SCOPE, UNLABELLED)))
        write_shards(tmp_path, number, [pa.concat_tables([train, without, validate])])
        paths += task_shards(tmp_path, number)
    return paths


def test_counts_left_out_answers_like_scikit_learn_ridge(shards) -> None:
    """Promise: it counts what scikit learns ridge answers right of rows left out."""
    found = preview({"books": shards[:1], "films": shards[1:]}, 0)
    num_rows, num_right = map(sum, zip(*found.values(), strict=True))
    assert [rows for rows, _ in found.values()] == [500, 500]
    rows = sampled(shards, COLUMNS, 1000, 0, Path)
    ridge = RidgeClassifierCV(np.logspace(-3, 3, 13))
    theirs = cross_val_score(ridge, feature_matrix(rows), rows["label"].to_numpy(), cv=20).mean()
    assert num_right / num_rows == pytest.approx(theirs, abs=0.02)
    assert 0.5 < theirs < 0.95


def test_only_labelled_train_rows_are_drawn_in_any_order(shards, tmp_path) -> None:
    """Promise: only labelled train rows are drawn the same ones however they lie."""
    drawn = sampled(shards, COLUMNS, 300, 0, Path)
    assert len(drawn) == 300
    assert set(drawn["split"].to_pylist()) == {"train"}
    assert min(drawn["label"].to_pylist()) >= 0
    everything = pa.concat_tables([pq.read_table(path) for path in shards]).sort_by([("id", "descending")])
    pq.write_table(everything, tmp_path / "other.parquet", row_group_size=70)
    again = sampled([tmp_path / "other.parquet"], COLUMNS, 300, 0, Path)
    assert set(again["id"].to_pylist()) == set(drawn["id"].to_pylist())
    assert set(sampled(shards, COLUMNS, 300, 1, Path)["id"].to_pylist()) != set(drawn["id"].to_pylist())


def test_rows_of_a_group_are_left_out_together() -> None:
    label_N = np.arange(120) % 2
    rows = rows_of("train", label_N, group=[f"pair {row // 2}" for row in range(120)])
    noise = np.random.default_rng(1).normal(size=(60, 200)).repeat(2, axis=0)  # who knows one of a pair knows the other
    same = rows.set_column(2, "label", pa.array(np.random.default_rng(2).integers(0, 2, 60).repeat(2)))
    assert right_left_out(noise.astype(np.float32), same.drop(["group"])).mean() > 0.9
    assert right_left_out(noise.astype(np.float32), same).mean() < 0.7


@pytest.mark.parametrize("label_N", [np.zeros(4, dtype=np.int64), np.arange(1)], ids=["one label", "one row"])
def test_it_says_nothing_where_nothing_can_be_computed(label_N, tmp_path) -> None:
    write_shards(tmp_path, 0, [rows_of("train", label_N)])
    assert preview({"books": task_shards(tmp_path, 0)}, 0) == {}
    assert list(preview_lines({})) == []

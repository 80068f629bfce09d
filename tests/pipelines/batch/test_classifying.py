"""A head is fitted on all labelled train rows, or on a sample of them that does not depend on how they are stored."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kcm.inputs.vectors import list_column
from pipelines.batch.classifying import MAX_FITTED_ROWS, RowHead, fitted_rows, row_classifier


def fitted_on(paths, limit=MAX_FITTED_ROWS) -> RowHead:
    return RowHead.fit(fitted_rows(paths, 0, limit), 2, 0)


def shards(tmp_path, sizes, rows_per_group=None):
    """Shards of rows whose label their first feature tells; the last rows are unlabelled, and test rows."""
    rng, paths, total = np.random.default_rng(0), [], sum(sizes)
    label_N = rng.integers(0, 2, total)
    features_ND = rng.normal(size=(total, 3)).astype(np.float32) + 3 * label_N[:, None]
    label_N[-20:-10] = -100
    splits = ["train"] * (total - 10) + ["test"] * 10
    ids = [f"row {n}" for n in range(total)]
    groups = pa.nulls(total, pa.string())
    if rows_per_group:
        groups = pa.array([f"group {n // rows_per_group}" for n in range(total)])
    columns = {"id": ids, "split": splits, "label": label_N, "group": groups}
    table = pa.table(columns | {"features": list_column(features_ND), "seconds": np.full(total, 0.5)})
    for number, start in enumerate(np.cumsum([0, *sizes[:-1]])):
        paths.append(tmp_path / f"{len(sizes)}-{number}.parquet")
        pq.write_table(table.slice(start, sizes[number]), paths[-1])
    return paths


def test_few_rows_are_all_fitted_and_get_out_of_fold_answers(tmp_path) -> None:
    (path,) = shards(tmp_path, [100])
    fitted = fitted_on([path])
    assert fitted.ids.to_pylist() == [f"row {n}" for n in range(80)]
    table, _ = row_classifier(fitted)(pq.read_table(path))
    answered = np.array(table["large_probabilities"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(answered[:80], fitted.out_of_fold_NC)
    assert table["large_cost"].to_pylist() == [0.5] * 100
    assert not np.array_equal(answered[:80], fitted.head.probabilities(np.zeros((80, 3), np.float32)))


def test_whole_units_are_fitted_whatever_their_shards(tmp_path) -> None:
    """Promise: of more rows whole units are fitted whatever their shards."""
    (path,) = paths = shards(tmp_path, [100], rows_per_group=4)
    one = fitted_on(paths, limit=30)
    three = fitted_on(shards(tmp_path, [40, 25, 35], rows_per_group=4), limit=30)
    np.testing.assert_array_equal(one.head.weight_CD, three.head.weight_CD)
    rows = pq.read_table(path)
    fitted = set(one.ids.to_pylist())
    assert 30 <= len(fitted) < 34
    units = {row["group"] for row in rows.to_pylist() if row["id"] in fitted}
    assert fitted == {row["id"] for row in rows.to_pylist()[:80] if row["group"] in units}
    answered = row_classifier(one)(rows)[0]["large_probabilities"].to_pylist()
    plain = one.head.probabilities(np.array(rows["features"].to_pylist(), dtype=np.float32))
    differs = (np.array(answered, dtype=np.float32) != plain).any(axis=1)
    np.testing.assert_array_equal(differs, [row in fitted for row in rows["id"].to_pylist()])

"""Features are those of the rows that were given, and rows without features are named."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.precomputed import PrecomputedConfig
from kcm.errors import DataError
from kcm.inputs.vectors import list_column, matrix
from kcm.tasks.shards import write_shards
from pipelines.batch.encoding import encode_shards, row_encoder, vector_copier
from pipelines.store.storage import Storage


def attempt_in(folder: Path) -> Any:
    """As much of an attempt as encoding needs."""
    context = SimpleNamespace(assets_path=folder, cluster=None, store=SimpleNamespace(storage=Storage.at(folder)))
    return SimpleNamespace(context=context, bar=SimpleNamespace(update=lambda done, total: None))


def rows(values_ND: np.ndarray) -> pa.Table:
    count = len(values_ND)
    columns = {"id": [f"row {n}" for n in range(count)], "text": [""] * count, "label": [n % 2 for n in range(count)]}
    splits = ["train"] * (count - 1) + ["test"]
    return pa.table(columns | {"group": ["g", *[""] * (count - 1)], "split": splits, "vector": list_column(values_ND)})


def test_row_vectors_become_features_whatever_the_shards(tmp_path) -> None:
    """Read in parts that are no multiple of a row group, and joined, they are the rows that were given."""
    values_ND = np.random.default_rng(0).normal(size=(2500, 3)).astype(np.float32)
    write_shards(tmp_path, 0, [rows(values_ND)])
    sources, folder = {"a": tmp_path / "task-0000.parquet"}, tmp_path / "made"
    encode_shards(attempt_in(tmp_path), PrecomputedConfig(column="v"), sources, folder, tmp_path / "s")
    table = pq.read_table(folder / "a")
    np.testing.assert_array_equal(matrix(table["features"]), values_ND)
    assert table["id"].to_pylist() == [f"row {n}" for n in range(2500)]
    assert table["group"].to_pylist()[:2] == ["g", None]
    assert set(table["seconds"].to_pylist()) == {0.0}
    assert table.column_names == ["id", "label", "split", "group", "features", "seconds"]


def test_untrainable_vector_is_named_by_row_and_file(tmp_path) -> None:
    """Promise: a vector that cannot be trained on is named by row and file."""
    values_ND = np.ones((4, 3), dtype=np.float32)
    values_ND[2, 1] = np.nan
    write_shards(tmp_path, 0, [rows(values_ND)])
    shard = tmp_path / "task-0000.parquet"
    with pytest.raises(DataError) as error:
        encode_shards(
            attempt_in(tmp_path), PrecomputedConfig(column="v"), {"a": shard}, tmp_path / "made", tmp_path / "s"
        )
    assert "row 2 (the vector holds a number that is not finite)" in str(error.value)
    assert error.value.where == str(shard)
    with pytest.raises(DataError, match=r"row 0 \(the vector has 3 numbers instead of 5\)"):
        vector_copier(PrecomputedConfig(column="v", dim=5))(rows(np.ones((2, 3), np.float32)))


def test_a_picture_that_cannot_be_read_is_named(tmp_path) -> None:
    given = pa.table({"id": ["a", "b"], "image": pa.array([b"not a picture"] * 2, pa.large_binary())})
    with pytest.raises(DataError, match=r"no features for 2 rows: a \(.*\), b \("):
        row_encoder(PixelsConfig(side=2), tmp_path, "cpu")(given)

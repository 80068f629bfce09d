"""Vectors come from a column of lists or from columns of numbers; what is no vector is a fault, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.tasks.readers.files import FilesSource

INF = float("inf")


def vectors(
    folder: Path, columns: dict[str, Any], patterns: tuple[str, ...] = ("v",), **more: dict[str, Any]
) -> list[tuple[list[float] | None, str]]:
    for name, each in {"a": columns, **more}.items():
        size = len(next(iter(each.values())))
        pq.write_table(pa.table({"label": ["x"] * size} | each), folder / f"{name}.parquet")
    source = FilesSource(path=f"{folder}/*.parquet", text_column=None).build(folder, patterns)
    return [(row["vector"], row["fault"]) for table in source.tables() for row in table.to_pylist()]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.int8(), 2), pa.list_(pa.float16(), 2)]
)
def test_lists_of_any_numbers_become_float32_of_one_length(tmp_path: Path, kind: pa.DataType) -> None:
    values = np.array([[1, 2], [3, 4]]).astype(kind.value_type.to_pandas_dtype())
    column = pa.array(list(values), kind) if pa.types.is_float16(kind.value_type) else pa.array(values.tolist(), kind)
    assert vectors(tmp_path, {"v": column}) == [([1, 2], ""), ([3, 4], "")]


def test_wrong_length_and_infinite_lists_are_row_faults(tmp_path: Path) -> None:
    found = vectors(
        tmp_path, {"v": [[1.0, 2.0], [1.0], None, [], [1.0, float("nan")], [INF, 1.0], [1.0, None], [1e39, 0]]}
    )
    assert [fault for _, fault in found] == [
        "",
        "the vector has 1 numbers, not 2",
        "",
        "the vector has 0 numbers, not 2",
        "number 2 of the vector is not finite",
        "number 1 of the vector is not finite",
        "number 2 of the vector is not finite",
        "number 1 of the vector is not finite",
    ]
    assert found[2][0] is None  # missing, which is the sequence's to say


def test_columns_of_numbers_are_taken_in_the_order_of_the_table(tmp_path: Path) -> None:
    columns = {"f_2": [1, 2], "other": ["a", "b"], "f_10": [0.5, None], "f_1": [True, False]}
    assert vectors(tmp_path, columns, ("f_*",)) == [
        ([1, 0.5, 1], ""),
        ([2, 0, 0], "None in column 'f_10' is not a finite number"),
    ]


def test_text_cells_are_read_as_numbers_or_row_faults(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("f_1,f_2,label\n1, 2e1 ,x\nabc,1,x\n,1,x\nnan,1,x\n")
    source = FilesSource(path=str(tmp_path / "rows.csv"), text_column=None).build(tmp_path, ("f_*",))
    (table,) = source.tables()
    assert table["vector"].to_pylist()[0] == [1, 20]
    assert table["fault"].to_pylist() == [
        "",
        "'abc' in column 'f_1' is not a finite number",
        "'' in column 'f_1' is not a finite number",
        "'nan' in column 'f_1' is not a finite number",
    ]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"v": [["a"]]}, {}, r"column 'v' holds string, not numbers .*a\.parquet"),
        ({"w": [[1.0]]}, {}, r"no column 'v' \(vector columns\).*mean 'w'"),
        ({"v": [[1.0]]}, {"v": [1.0]}, r"column 'v' holds double, in .*a\.parquet it holds lists .*b\.parquet"),
        (
            {"v": pa.array([[1.0]], pa.list_(pa.float32(), 1))},
            {"v": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))},
            r"vectors of column 'v' have 2 numbers, in .*a\.parquet they have 1 .*b\.parquet",
        ),
    ],
)
def test_unusable_vector_column_is_refused_by_name_and_file(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        vectors(tmp_path, first, **({"b": second} if second else {}))

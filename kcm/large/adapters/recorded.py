"""The `recorded` adapter: answers that the user already has, found by item id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from kcm.assets.manifest import sha256_of
from kcm.assets.trusted_paths import require_may_open
from kcm.config import LocalPath
from kcm.errors import DataError
from kcm.inputs.cell_text import as_text, without_missing
from kcm.inputs.chunks import SUFFIXES, read_chunks, readable, row_names
from kcm.inputs.content import Part
from kcm.inputs.location import Location, stem_of
from kcm.inputs.tables import missing_column
from kcm.inputs.vectors import list_column, matrix
from kcm.large.base import Cost, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, LargeConfig, Resources
from kcm.large.head import LinearHead

PROBABILITIES = "probabilities"
NO_ANSWER = "no recorded answer"
_PROBABILITY = "probability:"


class RecordedConfig(LargeConfig):
    """A table with one row per item, in any file format that rows can have.

    Columns: an id; a label, by its name; and optionally `probability:NAME` for every label, `seconds`, `tokens`,
    `currency` (the cost of the answer, in the currency of `costs`) and `error`. A row without a label is a failed
    answer.
    """

    reads: ClassVar[frozenset[Part]] = frozenset()
    operational: ClassVar[frozenset[str]] = frozenset({"path"})  # the identity covers the content

    path: Annotated[str, LocalPath] = Field(description="File with the answers: CSV, JSON lines, Parquet, Excel, …")
    id_column: str | None = Field(
        default="id",
        description="Column with the id of the item; null: file and row number, as for rows that are read from this "
        "file without an id.",
    )
    label_column: str = Field(default="label", description="Column with the name of the label that was answered.")

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        require_may_open(self.path, assets_dir)
        return RecordedModel(self, label_names)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        require_may_open(self.path, assets_dir)
        with readable(Location.of(self.file), SUFFIXES):
            return sha256_of(self.file)

    def next_table(self, table: str, instead_of: Sequence[str]) -> Self:
        """The answers in the other table, if they were in the table of the rows."""
        return self.model_copy(update={"path": table}) if self.path in instead_of else self

    @property
    def file(self) -> Path:
        """The table."""
        return Path(self.path).expanduser()

    @property
    def location(self) -> str:
        """The table."""
        return self.path


class RecordedModel:
    """Answers by id, read on first use.

    Raises DataError for a missing file or column, a repeated id, or a label outside the list.
    """

    def __init__(self, config: RecordedConfig, label_names: Sequence[str]) -> None:
        self._config, self._label_names = config, tuple(label_names)

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """The recorded answers; an item without an answer fails. `kcm run` lists such items beforehand."""
        answers = self._answers
        return [answers.get(item.id) or LargeAnswer(None, None, Cost(), NO_ANSWER) for item in items]

    def tables(self) -> Iterator[pa.Table]:
        """The recorded answers in tables of a few thousand rows: id, label, probabilities, costs and error.

        `label` is an index into the label list, or -1 for a missing label, for the reason in `error`. Probabilities are
        NaN if none are recorded. Raises DataError for impossible values.
        """
        config, location = self._config, Location.of(self._config.file)
        with readable(location, SUFFIXES):
            number = -1
            for number, chunk in enumerate(read_chunks(location)):
                if number == 0:
                    _check_columns(chunk.table, config, self._label_names)
                usable = np.delete(np.arange(chunk.num_rows), list(chunk.faults))  # a source's bad rows have no answer
                ids = row_names(stem_of(location.name), chunk.first, chunk.num_rows)
                if config.id_column is not None:
                    ids = as_text(chunk.table[config.id_column])
                yield _answer_table(chunk.table.take(usable), ids.take(usable), config, self._label_names)
        if number < 0:
            raise DataError("the file is empty", where=config.path)

    @cached_property
    def _answers(self) -> dict[str, LargeAnswer]:
        answers: dict[str, LargeAnswer] = {}
        for table in self.tables():
            for row, probabilities_C in zip(
                table.drop_columns([PROBABILITIES]).to_pylist(), matrix(table[PROBABILITIES]), strict=True
            ):
                if row["id"] in answers:
                    raise repeated(row["id"], self._config.path)
                answers[row["id"]] = _answer(row, probabilities_C)
        return answers


def repeated(item: str, path: str) -> DataError:
    """The error for an item with more than one answer."""
    return DataError(f"two answers for item {item!r}", where=path)


def _answer(row: Mapping[str, Any], probabilities_C: NDArray[np.float32]) -> LargeAnswer:
    cost = Cost(row["seconds"], row["tokens"], row["currency"])
    if row["label"] < 0:
        return LargeAnswer(None, None, cost, row["error"])
    return LargeAnswer(row["label"], None if np.isnan(probabilities_C).any() else probabilities_C, cost)


def _answer_table(rows: pa.Table, row_ids: pa.Array, config: RecordedConfig, label_names: Sequence[str]) -> pa.Table:
    ids = _series(row_ids)
    names, errors = _texts(rows, config.label_column, label_names), _texts(rows, "error")
    is_answered = (errors == "") & (names != "")
    label_index = pd.Index(label_names)
    label_N = np.where(is_answered, label_index.get_indexer(names.to_numpy(dtype=object)), -1)
    if len(wrong := np.flatnonzero(is_answered & (label_N < 0))):
        place = f"{config.path}, item {ids.iloc[wrong[0]]!r}"
        raise DataError(f"label {names.iloc[wrong[0]]!r} is not in the label list", where=place)
    numbers = {name: _numbers(rows, name, ids, config.path) for name in ("seconds", "tokens", "currency")}
    probabilities_NC = _probabilities(rows, ids, is_answered.to_numpy(), config.path, label_names)
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(label_N, pa.int64()),
        PROBABILITIES: list_column(probabilities_NC),
        "seconds": numbers["seconds"],
        "tokens": numbers["tokens"].astype(np.int64),
        "currency": numbers["currency"],
        "error": pa.array(np.where(is_answered, "", errors.where(errors != "", "no label was recorded")), pa.string()),
    }
    return pa.table(columns)


def _probabilities(
    rows: pa.Table, ids: pd.Series[str], is_answered: NDArray[np.bool_], path: str, label_names: Sequence[str]
) -> NDArray[np.float32]:
    """Probabilities [N, C] of the answered rows that sum to one; NaN if the table has none."""
    absent_NC = np.full((len(rows), len(label_names)), np.nan, dtype=np.float32)
    if not any(column.startswith(_PROBABILITY) for column in rows.column_names):
        return absent_NC
    columns = [_numbers(rows, f"{_PROBABILITY}{name}", ids, path) for name in label_names]
    recorded_NC = np.stack(columns, axis=1).astype(np.float32)
    total_N = recorded_NC.sum(axis=1)
    wrong = np.flatnonzero(is_answered & (np.abs(total_N - 1) > 1e-3))
    if len(wrong):
        place = f"{path}, item {ids.iloc[wrong[0]]!r}"
        raise DataError(f"the probabilities sum to {total_N[wrong[0]]:g}, not to 1", where=place)
    absent_NC[is_answered] = recorded_NC[is_answered] / total_N[is_answered, None]
    return absent_NC


def _check_columns(rows: pa.Table, config: RecordedConfig, label_names: Sequence[str]) -> None:
    needed = {config.id_column: "id_column", config.label_column: "label_column"}
    if any(column.startswith(_PROBABILITY) for column in rows.column_names):
        needed |= {f"{_PROBABILITY}{name}": "label list" for name in label_names}
    for column, field in needed.items():
        if column is not None and column not in rows.column_names:
            raise missing_column(column, field, rows.column_names, config.path)


def _texts(rows: pa.Table, column: str, names: Sequence[str] = ()) -> pd.Series[str]:
    """A column as texts, empty for missing values or a missing column; values in `names` are never missing."""
    if column not in rows.column_names:
        return pd.Series("", index=range(len(rows)), dtype=object)
    return _series(pc.fill_null(without_missing(as_text(rows[column]), names), ""))


def _series(texts: pa.Array) -> pd.Series[str]:
    return pd.Series(texts.to_pylist(), dtype=object)


def _numbers(rows: pa.Table, column: str, ids: pd.Series[str], path: str) -> NDArray[np.float64]:
    """A column as finite numbers >= 0; 0 for missing values or a missing column."""
    texts = _texts(rows, column)
    numbers: NDArray[np.float64] = pd.to_numeric(texts.where(texts != "", "0"), errors="coerce").to_numpy(np.float64)
    if len(wrong := np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))):
        place = f"{path}, item {ids.iloc[wrong[0]]!r}"
        raise DataError(f"{column} = {texts.iloc[wrong[0]]!r} is not a number from 0", where=place)
    return numbers

"""A routing table: correctness of both models, confidence, cost and input of every row.

Unlike the outcome table of a run it has neither logits nor prompts: logged answers of two models are enough.
Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.table import ColumnTable
from kcm.certification.ledger import CONTENT, GROUP, ID, Hashes, unit_hashes
from kcm.inputs.tables import matching_columns, read_frame
from kcm.routing.columns import Cells, check_columns
from kcm.routing.config import RouteColumns
from kcm.tasks.rows import split_name
from kcm.tasks.units import content_names, group_names, text_key, text_keys

_SUFFIXES = (".csv", ".tsv", ".parquet")
_TEXT_LENGTH = 12  # mean number of characters of a text column; shorter cells are ids or categories


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingTable(ColumnTable):
    """One row per item; every column is [N], or None if the table lacks it.

    `large_error` marks answers that the large model failed to give: wrong in accuracy, right in a certificate.
    `item` identifies the input; rows with equal `item` hold the same input. `confidence` is the small model's
    confidence or score, as the user gave it. `texts` and `ids` identify the whole file in a ledger, see `ledger_units`.
    `notes` are remarks that every reader of the results needs.
    """

    name: NDArray[np.object_]
    item: NDArray[np.object_]
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    large_error: NDArray[np.bool_]
    confidence: NDArray[np.float64] | None = None
    text: NDArray[np.object_] | None = None
    small_response: NDArray[np.object_] | None = None
    features: NDArray[np.float64] | None = None  # [N, D]
    category: NDArray[np.object_] | None = None
    small_cost: NDArray[np.float64] | None = None
    large_cost: NDArray[np.float64] | None = None
    group: NDArray[np.object_] | None = None
    split: NDArray[np.object_] | None = None
    texts: tuple[NDArray[np.object_], ...] = ()  # of all rows of the file, including text columns nobody named
    ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.name)

    def scored(self, score: ArrayLike) -> ScoredOutcomes:
        """The rows with gate scores [N], for frontier and certificate."""
        return ScoredOutcomes(
            score=np.asarray(score, dtype=np.float64),
            small_correct=self.small_correct,
            large_correct=self.large_correct,
            large_none_error=self.large_error,
            group=self.group,
        )

    def ledger_units(self) -> dict[str, Hashes]:
        """The identity of the file in a ledger: the contents of all its texts, its ids and its groups.

        All text columns count, so the file is the same table whichever column is named.
        """
        keys = (pa.table({"text": text_keys(pa.array(column, pa.string()))}) for column in self.texts)
        contents = {name for table in keys for name in content_names(table)}
        groups = set() if self.group is None else set(group_names(pa.array(self.group, pa.string()).fill_null("")))
        names = {CONTENT: contents, ID: self.ids, GROUP: groups - {""}}
        return {kind: unit_hashes(values) for kind, values in names.items()}

    def costs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Cost of the large and of the small model's answers, [N] each; None if the large model's is unknown."""
        if self.large_cost is None:
            return None
        return self.large_cost, np.zeros(len(self)) if self.small_cost is None else self.small_cost


def read_table(path: Path, columns: RouteColumns) -> RoutingTable:
    """Read a CSV, TSV or Parquet file.

    Raises ConfigError if the columns do not say who was right, and DataError naming rows that cannot be used.
    """
    return table_of(read_frame(path, _SUFFIXES), columns, str(path))


def table_of(frame: pd.DataFrame, columns: RouteColumns, where: str) -> RoutingTable:
    """The table in a frame, called `where` in messages; raises the errors of `read_table`."""
    columns.check()
    frame = _checked(frame, columns, where)
    table, cells = _read_inputs(frame, columns, where)
    notes: list[str] = []
    small_correct, large_correct, large_error = _correctness(cells, columns, notes)
    outcomes = replace(
        table,
        small_correct=small_correct,
        large_correct=large_correct,
        large_error=large_error,
        small_cost=cells.numbers(columns.small_cost, "a cost", low=0) if columns.small_cost else None,
        large_cost=cells.numbers(columns.large_cost, "a cost", low=0) if columns.large_cost else None,
        notes=(*notes, *table.notes),
        texts=_texts(frame, columns),
        ids=() if columns.id is None else tuple(cells.strings(columns.id)),
    )
    return _without_copies(outcomes, frame)


def unjudged_table(frame: pd.DataFrame, columns: RouteColumns, where: str) -> RoutingTable:
    """The inputs in a frame without correctness: both models count as wrong, at unknown cost, in no split."""
    optional_fields = ("small_correct", "large_correct", "small_prediction", "large_prediction", "label")
    columns = columns.model_copy(update=dict.fromkeys((*optional_fields, "small_cost", "large_cost", "split")))
    return _read_inputs(_checked(frame, columns, where), columns, where)[0]


def _checked(frame: pd.DataFrame, columns: RouteColumns, where: str) -> pd.DataFrame:
    """The frame with texts as column names, and rows numbered from 0. Raises DataError as `check_columns` does."""
    frame = frame.reset_index(drop=True)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    check_columns(frame, columns, where)
    return frame


def _read_inputs(frame: pd.DataFrame, columns: RouteColumns, where: str) -> tuple[RoutingTable, Cells]:
    """The table's inputs, without answers and costs (both models count as wrong), and all its cells."""
    names = _row_names(frame, columns, where)
    cells = Cells(frame, names, where)
    notes: list[str] = []
    is_unknown = np.zeros(len(names), dtype=bool)
    table = RoutingTable(
        name=names,
        item=_items(frame, cells, columns),
        small_correct=is_unknown,
        large_correct=is_unknown,
        large_error=is_unknown,
        confidence=_confidence(cells, columns),
        text=_text(cells, columns.text, "text", notes),
        small_response=_text(cells, columns.small_response, "response", notes),
        features=_features(cells, matching_columns(list(frame.columns), columns.features, "features", where)),
        category=cells.strings(columns.category) if columns.category else None,
        group=cells.strings(columns.group) if columns.group else None,
        split=_splits(cells, columns.split) if columns.split else None,
        notes=tuple(notes),
    )
    return table, cells


def _row_names(frame: pd.DataFrame, columns: RouteColumns, where: str) -> NDArray[np.object_]:
    """`id X` if the table has ids, otherwise `row N`, counted from 1."""
    if columns.id is None:
        return np.array([f"row {number}" for number in range(1, len(frame) + 1)], dtype=object)
    ids = Cells(frame, np.arange(1, len(frame) + 1).astype(str).astype(object), where)
    names = ids.required(columns.id, ids.strings(columns.id), "an id")
    ids.refuse(columns.id, pd.Series(names).duplicated(), names, "an id must be unique")
    return np.array([f"id {name}" for name in names], dtype=object)


def _items(frame: pd.DataFrame, cells: Cells, columns: RouteColumns) -> NDArray[np.object_]:
    """The key of an item: the text, or the id, or the whole row, in this order.

    Rows of several splits that agree in all other columns may be copies, or may only look alike (few distinct
    confidences). They count as copies only if no split holds a row twice.
    """
    if columns.text:
        texts = cells.strings(columns.text)
        return np.array([f"empty {n}" if t is None else text_key(t) for n, t in enumerate(texts)], dtype=object)
    if columns.id:
        return cells.strings(columns.id)
    content = frame.drop(columns=[columns.split] if columns.split else [])
    digest = pd.util.hash_pandas_object(content.astype(str), index=False)
    keys = pd.DataFrame({"digest": digest, "split": frame[columns.split].astype(str) if columns.split else ""})
    if keys.duplicated().any():
        return np.array([f"{value:016x} {split}" for value, split in keys.to_numpy()], dtype=object)
    return np.array([f"{value:016x}" for value in digest], dtype=object)


def _without_copies(table: RoutingTable, frame: pd.DataFrame) -> RoutingTable:
    """The table with only the first of several rows that are equal in every column: copies are one draw."""
    copies = frame.astype(str).duplicated().to_numpy()
    if not copies.any():
        return table
    note = (
        f"{copies.sum()} rows repeat others in every column and count once; name an id column if they are separate rows"
    )
    return replace(table.select(~copies), notes=(*table.notes, note))


def _texts(frame: pd.DataFrame, columns: RouteColumns) -> tuple[NDArray[np.object_], ...]:
    """The text columns [N]: the named one and others that look like texts, without the models' answers."""
    answers = {name for field, name in columns.named.items() if field != "text"}
    groups = []
    for name in frame.columns:
        cells = frame[name].dropna()
        if name in answers or cells.empty or not cells.map(lambda cell: isinstance(cell, str)).all():
            continue
        if name == columns.text or (2 * cells.nunique() >= len(cells) and cells.str.len().mean() >= _TEXT_LENGTH):
            groups.append(cells.to_numpy(dtype=object))
    return tuple(groups)


def _correctness(
    cells: Cells, columns: RouteColumns, notes: list[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the small model is right, whether the large one is, and whether the large one failed to answer, [N]."""
    if columns.small_correct and columns.large_correct:
        small = cells.truths(columns.small_correct)
        return small, cells.truths(columns.large_correct), np.zeros(len(small), dtype=bool)
    assert columns.label is not None  # ensured by `check`
    assert columns.small_prediction is not None
    assert columns.large_prediction is not None
    label = cells.required(columns.label, cells.labels(columns.label), "a label")
    small_answer, large_answer = cells.labels(columns.small_prediction), cells.labels(columns.large_prediction)
    large_error = pd.isna(large_answer)
    if num_silent := int(pd.isna(small_answer).sum()):
        notes.append(f"the small model gave no answer in {num_silent} rows; it counts as wrong there")
    if large_error.any():
        notes.append(
            f"the large model gave no answer in {large_error.sum()} rows; it counts as wrong in accuracies, and as"
            " right in the certificate, which makes the certificate stricter"
        )
    for model, answer in (("small", small_answer), ("large", large_answer)):
        if not set(answer) & set(label):
            notes.append(f"no answer of the {model} model is any of the labels; are they written alike?")
    return small_answer == label, large_answer == label, large_error


def _confidence(cells: Cells, columns: RouteColumns) -> NDArray[np.float64] | None:
    if columns.confidence:
        return cells.numbers(columns.confidence, "a confidence", low=0, high=1)
    return cells.numbers(columns.score, "a score") if columns.score else None


def _text(cells: Cells, column: str | None, subject: str, notes: list[str]) -> NDArray[np.object_] | None:
    if column is None:
        return None
    texts = cells.strings(column)
    empty = pd.isna(texts)
    if empty.any():
        notes.append(f"{empty.sum()} rows have no {subject}")
    return np.where(empty, "", texts)


def _features(cells: Cells, names: Sequence[str]) -> NDArray[np.float64] | None:
    return np.stack([cells.numbers(name, "a feature") for name in names], -1) if names else None


def _splits(cells: Cells, column: str) -> NDArray[np.object_]:
    """The splits by their names here, whatever the table calls them."""
    names = cells.required(column, cells.strings(column), "a split")
    splits = np.array([split_name(word) for word in names], dtype=object)
    cells.refuse(column, pd.isna(splits), names, "a split must be one of train, validate, certify, test")
    return splits

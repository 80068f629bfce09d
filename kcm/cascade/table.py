"""The outcome table: the answers of judge, small and large model to every item, under every prompt mode.

Search, certificate, metrics and report read this table alone. Shapes: N rows, C labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.errors import DataError
from kcm.inputs.vectors import list_column
from kcm.large.prompting.prompts import PromptMode

Split = Literal["validate", "certify", "test"]
PROMPT_MODES: tuple[PromptMode, ...] = ("none", "soft", "hard")
SPLITS: tuple[Split, ...] = ("validate", "certify", "test")

_STRINGS = ("id", "task", "split", "prompt", "group")
_MATRICES = ("judge_logits", "small_logits", "large_probabilities")


@dataclass(frozen=True, eq=False)
class ColumnTable:
    """Base of tables whose fields are columns of one length, [N] or [N, …], and what holds for all rows."""

    def select(self, rows: ArrayLike) -> Self:
        """The rows of a boolean mask or of an array of positions."""
        index = np.asarray(rows)
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: each[index] for name, each in columns.items() if isinstance(each, np.ndarray)})


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeTable(ColumnTable):
    """One row per (item, prompt mode), validated on construction.

    Logits may be -inf where a label cannot be answered (a class not seen yet, none-of-these), never NaN.
    `large_label` is -1 where the large model answered outside the label list or failed; `large_error` tells which.
    `large_probabilities` rows are NaN where the large model gave only a label. `large_cost` is in the adapter's unit.
    `none_label` and `none_error` repeat the large model's answer under prompt `none` for the same item, so that a
    selection of other prompt modes keeps its baseline; they are looked up when not given.

    Raises DataError that names the offending rows.
    """

    id: NDArray[np.object_]
    task: NDArray[np.object_]
    split: NDArray[np.object_]
    label: NDArray[np.int64]
    judge_logits: NDArray[np.float64]  # [N, C]
    small_logits: NDArray[np.float64]  # [N, C]
    large_label: NDArray[np.int64]
    large_probabilities: NDArray[np.float64]  # [N, C]
    large_cost: NDArray[np.float64]
    large_error: NDArray[np.bool_]
    prompt: NDArray[np.object_]
    label_names: tuple[str, ...]
    group: NDArray[np.object_] | None = None
    none_label: NDArray[np.int64] | None = None
    none_error: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_names", tuple(self.label_names))
        for name in _columns(self):
            object.__setattr__(self, name, _typed(name, getattr(self, name)))
        _check_shapes(self)
        _check_values(self)
        _check_items(self)
        if self.none_label is None or self.none_error is None:
            row = _none_rows(self)
            object.__setattr__(self, "none_label", self.large_label[row])
            object.__setattr__(self, "none_error", self.large_error[row])

    def __len__(self) -> int:
        return len(self.id)

    @property
    def small_label(self) -> NDArray[np.int64]:
        """The small model's answer, [N]."""
        return np.asarray(self.small_logits.argmax(1))

    @property
    def small_correct(self) -> NDArray[np.bool_]:
        """S: the small model is right, [N]."""
        return np.asarray(self.small_label == self.label)

    @property
    def large_correct(self) -> NDArray[np.bool_]:
        """L: the large model is right under the row's prompt, [N]; a failed or off-label answer is wrong."""
        return np.asarray(self.large_label == self.label)

    @property
    def large_none_correct(self) -> NDArray[np.bool_]:
        """L_none: the large model is right under prompt `none`, [N]; a failed or off-label answer is wrong."""
        return np.asarray(self.none_label == self.label)

    @property
    def large_none_error(self) -> NDArray[np.bool_]:
        """The large model failed under prompt `none`, [N]."""
        assert self.none_error is not None
        return self.none_error

    def where(
        self, *, split: Split | None = None, task: str | None = None, prompt: PromptMode | None = None
    ) -> OutcomeTable:
        """The rows of one split, task or prompt mode, or of a combination."""
        mask = np.ones(len(self), dtype=bool)
        for column, wanted in ((self.split, split), (self.task, task), (self.prompt, prompt)):
            if wanted is not None:
                mask &= column == wanted
        return self.select(mask)

    def to_arrow(self) -> pa.Table:
        """The rows as they are written to a file; the label names are in its metadata."""
        arrays = {name: _to_arrow(getattr(self, name)) for name in _columns(self)}
        return pa.table(arrays).replace_schema_metadata({"label_names": json.dumps(self.label_names)})


def _columns(table: OutcomeTable) -> list[str]:
    """Names of the columns that are present."""
    return [f.name for f in fields(table) if f.name != "label_names" and getattr(table, f.name) is not None]


def _typed(name: str, values: ArrayLike) -> NDArray[Any]:
    if name in _STRINGS:
        return np.asarray(values, dtype=object)
    if name in ("large_error", "none_error"):
        return np.asarray(values, dtype=np.bool_)
    if name in ("label", "large_label", "none_label"):
        return np.asarray(values, dtype=np.int64)
    return np.asarray(values, dtype=np.float64)


def _check_shapes(table: OutcomeTable) -> None:
    num_rows, num_labels = len(table.id), len(table.label_names)
    if num_labels == 0 or len(set(table.label_names)) != num_labels:
        raise DataError(f"label names must be distinct and at least one, got {table.label_names}", where="label_names")
    for name in _columns(table):
        expected = (num_rows, num_labels) if name in _MATRICES else (num_rows,)
        shape = getattr(table, name).shape
        if shape != expected:
            raise DataError(f"column has shape {shape}, expected {expected}", where=name)


def _check_values(table: OutcomeTable) -> None:
    num_labels = len(table.label_names)
    _refuse(table, "split", ~np.isin(table.split.astype(str), SPLITS), f"must be one of {', '.join(SPLITS)}")
    _refuse(
        table, "prompt", ~np.isin(table.prompt.astype(str), PROMPT_MODES), f"must be one of {', '.join(PROMPT_MODES)}"
    )
    _refuse(table, "label", (table.label < 0) | (table.label >= num_labels), f"must lie in 0..{num_labels - 1}")
    _refuse(
        table,
        "large_label",
        (table.large_label < -1) | (table.large_label >= num_labels),
        f"must lie in -1..{num_labels - 1}",
    )
    _refuse(table, "large_label", table.large_error & (table.large_label != -1), "must be -1 where large_error is set")
    for name in ("judge_logits", "small_logits"):
        logits_NC = getattr(table, name)
        bad = np.isnan(logits_NC).any(1) | np.isposinf(logits_NC).any(1) | np.isneginf(logits_NC).all(1)
        _refuse(table, name, bad, "must be finite, or -inf for labels that cannot be answered")
    _refuse(table, "large_cost", ~np.isfinite(table.large_cost) | (table.large_cost < 0), "must be finite and >= 0")
    p_NC = table.large_probabilities
    present_N = ~np.isnan(p_NC).all(1)
    distribution = (p_NC >= 0).all(1) & (np.abs(p_NC.sum(1) - 1) < 1e-3)
    _refuse(table, "large_probabilities", present_N & ~distribution, "must be >= 0 and sum to 1, or be NaN throughout")


def _check_items(table: OutcomeTable) -> None:
    """An id has one row per prompt mode and one task, split, label and group; a group lies in one split."""
    for name in ("id", "task"):
        _refuse(table, name, pd.isna(getattr(table, name)), "must be given")
    columns: dict[str, Any] = {name: getattr(table, name) for name in ("id", "task", "split", "prompt", "label")}
    frame = pd.DataFrame(columns)
    _refuse(table, "prompt", frame.duplicated(["id", "prompt"]).to_numpy(), "occurs twice for the same id")
    for name in ("split", "task", "label"):
        _refuse(table, name, _disagrees(frame["id"], frame[name]), "differs between rows of the same id")
    if table.group is not None:
        grouped = ~pd.isna(table.group)
        bad = np.zeros(len(table), dtype=bool)
        bad[grouped] = _disagrees(pd.Series(table.group[grouped]), frame["split"][grouped].reset_index(drop=True))
        _refuse(table, "group", bad, "occurs in two splits; the rows of a group must stay together")


def _disagrees(key: pd.Series[Any], value: pd.Series[Any]) -> NDArray[np.bool_]:
    """Rows whose value is not that of the first row with the same key, [N]."""
    key_code, keys = pd.factorize(key)
    value_code, _ = pd.factorize(value)
    first = np.empty(len(keys), dtype=np.int64)
    first[key_code[::-1]] = value_code[::-1]
    return np.asarray(first[key_code] != value_code)


def _none_rows(table: OutcomeTable) -> NDArray[np.int64]:
    """Position of the row with prompt `none` of every row's item, [N]."""
    code, ids = pd.factorize(table.id)
    row = np.full(len(ids), -1)
    none = np.flatnonzero(table.prompt == "none")
    row[code[none]] = none
    _refuse(table, "prompt", row[code] < 0, "has no row with prompt none beside it, the baseline of every comparison")
    return np.asarray(row[code])


def _refuse(table: OutcomeTable, column: str, bad: NDArray[np.bool_], rule: str) -> None:
    """Raise a DataError that names the first bad rows by id and value."""
    rows = np.flatnonzero(bad)
    if len(rows) == 0:
        return
    values = getattr(table, column)
    shown = "; ".join(f"id {table.id[row]!r}: {_shown(values[row])}" for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    raise DataError(f"{column} {rule} ({shown}{more})", where=f"outcome table, column {column}")


def _shown(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.generic | np.ndarray) else value)[:80]


def _to_arrow(column: NDArray[Any]) -> Any:
    if column.ndim == 2:
        return list_column(column)
    return pa.array(column, type=pa.string() if column.dtype == object else None)


def concatenate(tables: Sequence[OutcomeTable]) -> OutcomeTable:
    """The rows of several tables over the same labels, validated together; raises DataError where they differ."""
    names = {table.label_names for table in tables}
    if len(names) != 1:
        raise DataError(f"outcome tables over different labels cannot be joined: {sorted(names)}", where="label_names")
    columns = set.intersection(*(set(_columns(table)) for table in tables)) - {"group"}
    joined = {name: np.concatenate([getattr(table, name) for table in tables]) for name in columns}
    groups = joined_groups([(table.group, len(table)) for table in tables])
    return OutcomeTable(label_names=tables[0].label_names, group=groups, **joined)


def joined_groups(parts: Sequence[tuple[NDArray[np.object_] | None, int]]) -> NDArray[np.object_] | None:
    """The groups of several tables, each with its number of rows; None where no row has one."""
    joined = np.concatenate([np.full(count, None) if group is None else group for group, count in parts])
    return None if pd.isna(joined).all() else joined

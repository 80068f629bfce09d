"""Which normalised rows cannot be used, and why. N rows."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.inputs.content import PARTS, TEXT, Part
from kcm.inputs.pictures import picture_fault
from kcm.tasks.rows import SPLIT_NAMES, split_name
from kcm.tasks.splits import NOT_GIVEN, SPLITS

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RowRules:
    """The conditions for a usable row, and the `salt` of the splits.

    If `known_labels` is empty, every label is known. `reads` are the parts of a row that a model will read: each must
    be present, and no other part is kept. `unlabelled` allows train rows without a label.
    """

    known_labels: tuple[str, ...] = ()
    reads: frozenset[Part] = TEXT
    unlabelled: bool = False
    salt: int = 0

    @property
    def parts(self) -> list[Part]:
        """The columns of the parts that are read."""
        return [part for part in PARTS if part in self.reads]


def faults(table: pa.Table, text_keys: pa.Array, rules: RowRules) -> dict[int, str]:
    """Why rows cannot be used, by position, such as a missing value, an empty text or an unknown label.

    `text_keys` are the keys of the texts, empty for texts of white space.
    """
    reasons: dict[int, str] = {}

    def mark(faulty_N: Mask, reason: str | Callable[[int], str]) -> None:
        """Give this reason to rows that have none yet."""
        for row in np.flatnonzero(faulty_N).tolist():
            if row not in reasons:
                reasons[row] = reason(row) if callable(reason) else reason

    origin_N, is_known_split_N = origins(table["split"])
    may_train_N = np.isin(origin_N, (NOT_GIVEN, SPLITS.index("train"))) & is_known_split_N
    needs_label_N = ~may_train_N if rules.unlabelled else np.ones(len(table), dtype=bool)
    for name in ("id", "label", "group", "task", "split", *rules.parts):
        missing_N = _mask(pc.is_null(table[name])) if name in table.column_names else np.ones(len(table), dtype=bool)
        mark(missing_N & needs_label_N if name == "label" else missing_N, f"missing {name}")
    mark(_mask(pc.equal(table["id"], "")), "missing id")
    mark(_mask(pc.not_equal(table["fault"], "")), lambda row: str(table["fault"][row]))
    if "text" in rules.reads:
        mark(_mask(pc.equal(text_keys, "")), "empty text")
    if "image" in rules.reads:
        mark(_mask(pc.equal(pc.binary_length(table["image"]), 0)), "empty image")
    if "vector" in rules.reads and "vector" in table.column_names:
        mark(_has_odd_number(table["vector"]), "the vector holds a number that is not finite")
    mark(_mask(pc.equal(table["label"], "")) & needs_label_N, "missing label")
    if rules.known_labels:
        known_labels = pa.array([*rules.known_labels, ""], pa.string())
        unknown_N = ~_mask(pc.is_in(table["label"], known_labels)) & _mask(table["label"].is_valid())
        mark(unknown_N, lambda row: _unknown_label(str(table["label"][row]), rules.known_labels))
    names = ", ".join(SPLIT_NAMES)
    mark(~is_known_split_N, lambda row: f"unknown split {str(table['split'][row])!r}, known are {names}")
    if "image" in rules.reads:
        _mark_pictures(table["image"], reasons)
    return reasons


def origins(splits: pa.ChunkedArray) -> tuple[NDArray[np.int8], Mask]:
    """The given split of every row as an index into SPLITS, or NOT_GIVEN; and whether the split's name is known."""
    coded = pc.dictionary_encode(pc.fill_null(splits, "")).combine_chunks()
    names = [split_name(name) if name else "" for name in coded.dictionary.to_pylist()]
    places = np.array([SPLITS.index(name) if name else NOT_GIVEN for name in names], dtype=np.int8)
    is_known = np.array([name is not None for name in names], dtype=bool)
    code_N = coded.indices.to_numpy()
    return places[code_N], is_known[code_N]


def _mark_pictures(images: pa.ChunkedArray, reasons: dict[int, str]) -> None:
    """Set the reason of rows whose picture cannot be decoded."""
    rows = [row for row in range(len(images)) if row not in reasons]
    with ThreadPoolExecutor() as threads:  # decoders release the interpreter's lock
        for row, fault in zip(rows, threads.map(lambda row: picture_fault(images[row].as_py()), rows), strict=True):
            if fault:
                reasons[row] = fault


def _unknown_label(label: str, known_labels: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(label, known_labels, n=1)
    return f"label {label!r} is not in the label list" + (f", did you mean {nearest[0]!r}?" if nearest else "")


def _has_odd_number(vectors: pa.ChunkedArray) -> Mask:
    column = vectors.combine_chunks()
    finite = np.isfinite(pc.fill_null(column, [0.0] * column.type.list_size).flatten().to_numpy())
    return np.asarray(~finite.reshape(len(column), -1).all(axis=1))


def _mask(values: pa.ChunkedArray | pa.Array) -> Mask:
    """Booleans, null as False, [N]."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)

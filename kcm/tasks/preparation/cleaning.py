"""Cleaning: the usable rows of a table of normalised ones, and what is wrong with the others. N rows."""

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
from kcm.tasks.hashing import draws
from kcm.tasks.plan.splits import NOT_GIVEN, SPLITS
from kcm.tasks.preparation.digests import as_digests, content_names, group_names, id_digests, text_keys
from kcm.tasks.rows import SPLIT_NAMES, split_name

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """What makes a row usable, and the salt of its draw.

    `known_labels` empty means that every label is known. `reads` are the parts of a row that a model will read: each
    must be there, and no other is kept. `unlabelled` allows train rows without a label.
    """

    known_labels: tuple[str, ...] = ()
    reads: frozenset[Part] = TEXT
    unlabelled: bool = False
    salt: int = 0


@dataclass
class Cleaned:
    """The usable rows of a table in their order, and the others.

    `rows` has the columns id, label, group and task; text, image and vector where they are read; `position`, its place
    in the table; `origin`, the given split as a place in SPLITS, else NOT_GIVEN; `draw`, of the unit. `ids`, `content`
    and `unit` are digests, [N]; the unit is the group, else the content. `faults` has position, id (null where there is
    none) and reason.
    """

    rows: pa.Table
    ids: NDArray[np.void]
    content: NDArray[np.void]
    unit: NDArray[np.void]
    faults: pa.Table


def clean(table: pa.Table, rules: Rules) -> Cleaned:
    """Separate usable rows from bad ones: missing value, empty text, bad image, unknown label or split."""
    table = table.combine_chunks()
    origin_N, known_split_N = _origins(table["split"])
    keys = text_keys(_plain(table["text"])) if "text" in rules.reads else pa.array([""] * len(table), pa.string())
    reasons = _reasons(table, keys, origin_N, known_split_N, rules)
    faulty_N = np.zeros(len(table), dtype=bool)
    faulty_N[list(reasons)] = True
    faults = pa.table(
        {
            "position": np.flatnonzero(faulty_N),
            "id": table["id"].filter(pa.array(faulty_N)),
            "reason": pa.array([reasons[row] for row in sorted(reasons)], pa.string()),
        }
    )
    position_N = np.flatnonzero(~faulty_N)
    if len(faults):
        usable = pa.array(~faulty_N)
        table, keys, origin_N = table.filter(usable).combine_chunks(), keys.filter(usable), origin_N[~faulty_N]
    parts = [part for part in PARTS if part in rules.reads]
    label = pc.fill_null(table["label"], "")
    columns = {name: table[name] for name in ("id", *parts, "group", "task")} | {"label": label}
    named = pa.table({"text": keys} | {part: table[part] for part in parts})
    contents, groups = content_names(named, keys), group_names(_plain(table["group"]))
    units = [group or content for group, content in zip(groups, contents, strict=True)] if any(groups) else contents
    columns |= {"position": position_N, "origin": origin_N, "draw": draws(rules.salt, "purpose", units)}
    return Cleaned(pa.table(columns), id_digests(table["id"]), as_digests(contents), as_digests(units), faults)


def _reasons(
    table: pa.Table, keys: pa.Array, origin_N: NDArray[np.int8], known_split_N: Mask, rules: Rules
) -> dict[int, str]:
    """Why rows cannot be used, by their place."""
    found: dict[int, str] = {}

    def mark(faulty_N: Mask, reason: str | Callable[[int], str]) -> None:
        """Give the rows that have none yet this reason."""
        for row in np.flatnonzero(faulty_N).tolist():
            if row not in found:
                found[row] = reason(row) if callable(reason) else reason

    given_to_train = np.isin(origin_N, (NOT_GIVEN, SPLITS.index("train"))) & known_split_N
    needs_label_N = ~given_to_train if rules.unlabelled else np.ones(len(table), dtype=bool)
    parts = [part for part in PARTS if part in rules.reads]
    for name in ("id", "label", "group", "task", "split", *parts):
        missing_N = _mask(pc.is_null(table[name])) if name in table.column_names else np.ones(len(table), dtype=bool)
        mark(missing_N & needs_label_N if name == "label" else missing_N, f"missing {name}")
    mark(_is_empty(table["id"]), "missing id")
    mark(~_is_empty(table["fault"]), lambda row: str(table["fault"][row]))
    if "text" in parts:
        mark(_is_empty(keys), "empty text")
    if "image" in parts:
        mark(_mask(pc.equal(pc.binary_length(table["image"]), 0)), "empty image")
    if "vector" in parts and "vector" in table.column_names:
        mark(_has_odd_number(table["vector"]), "the vector holds a number that is not finite")
    mark(_is_empty(table["label"]) & needs_label_N, "missing label")
    if rules.known_labels:
        known = pa.array([*rules.known_labels, ""], pa.string())
        unknown_N = ~_mask(pc.is_in(table["label"], known, skip_nulls=False)) & _mask(table["label"].is_valid())
        mark(unknown_N, lambda row: _unknown_label(str(table["label"][row]), rules.known_labels))
    mark(~known_split_N, lambda row: f"unknown split {str(table['split'][row])!r}, known are {', '.join(SPLIT_NAMES)}")
    if "image" in parts:
        _mark_pictures(table["image"], found)
    return found


def _mark_pictures(images: pa.ChunkedArray, found: dict[int, str]) -> None:
    """Give rows whose picture cannot be decoded their reason."""
    rows = [row for row in range(len(images)) if row not in found]
    with ThreadPoolExecutor() as threads:  # decoders work outside the interpreter's lock
        faults = threads.map(lambda row: picture_fault(images[row].as_py()), rows)
        for row, fault in zip(rows, faults, strict=True):
            if fault:
                found[row] = fault


def _origins(splits: pa.ChunkedArray) -> tuple[NDArray[np.int8], Mask]:
    """The given split of every row, and whether its name is known; a missing one is."""
    distinct = pc.dictionary_encode(_plain(pc.fill_null(splits, "")))
    names = [split_name(written) if written else "" for written in distinct.dictionary.to_pylist()]
    codes = [NOT_GIVEN if not name else SPLITS.index(name) for name in names]
    place_N = distinct.indices.to_numpy()
    return np.array(codes, dtype=np.int8)[place_N], np.array([name is not None for name in names], dtype=bool)[place_N]


def _unknown_label(label: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(label, known, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    return f"label {label!r} is not in the label list{hint}"


def _has_odd_number(vectors: pa.ChunkedArray) -> Mask:
    column = _plain(vectors)
    finite = np.isfinite(pc.fill_null(column, [0.0] * column.type.list_size).flatten().to_numpy())
    return ~np.asarray(finite.reshape(len(column), -1).all(axis=1), dtype=bool)


def _is_empty(values: pa.ChunkedArray | pa.Array) -> Mask:
    """Whether a string is "" and not null."""
    return _mask(pc.equal(values, ""))


def _mask(values: pa.ChunkedArray | pa.Array) -> Mask:
    """Booleans, null as False, [N]."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

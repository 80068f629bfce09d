"""Guesses what the columns of an unknown table hold, by their names or by their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from kcm.inputs.cell_text import without_missing, written
from kcm.inputs.vectors import numbers_in
from kcm.tasks.rows import split_name

_NAMES = {
    "split": ("split",),
    "id": ("id", "uid", "uuid", "key", "row_id", "item_id"),
    "label": ("label", "labels", "category", "intent", "target", "class", "gold", "topic", "sentiment", "tag", "queue"),
    "text": ("text", "sentence", "utterance", "prompt", "question", "query", "review", "message", "body", "content"),
    "task": ("task", "domain"),
    "group": ("group", "document", "user", "session", "conversation", "author", "customer", "thread"),
}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff")
_GAPS = 0.05  # largest share of cells without a number in a column of numbers


@dataclass(frozen=True)
class GuessedColumns:
    """The column of each role, None if there is none. `large` holds a large model's answers, and is never guessed."""

    text: str | None = None
    image: str | None = None
    label: str | None = None
    id: str | None = None
    group: str | None = None
    task: str | None = None
    split: str | None = None
    large: str | None = None
    vector: tuple[str, ...] = ()


def guess_columns(frame: pd.DataFrame, known: Mapping[str, str | None] | None = None) -> GuessedColumns:
    """The likely column of each role; a role in `known` is not guessed."""
    lists = [str(name) for name in frame.columns if _has(frame[name], list, np.ndarray)]
    pictures = [str(name) for name in frame.columns if _has(frame[name], bytes)]
    cells = {str(name): given_texts(frame[name]) for name in frame.columns if str(name) not in (*lists, *pictures)}
    pictures += [
        name for name, texts in cells.items() if len(texts) and texts.str.lower().str.endswith(_PICTURES).all()
    ]
    unique = {name: texts.nunique() for name, texts in cells.items()}
    columns: dict[str, Any] = dict(known or {})
    columns.setdefault("image", next(iter(pictures), None))

    def free() -> list[str]:
        return [name for name in cells if name not in (*pictures, *columns.values())]

    fits: dict[str, Callable[[str], bool]] = {
        "split": lambda name: all(map(split_name, cells[name].unique())),
        "id": lambda name: unique[name] == len(frame),
        "task": lambda name: 2 <= unique[name] <= 50,
        "group": lambda name: 1 < unique[name] < len(frame),
    }
    for role, names in _NAMES.items():
        if role in columns:
            continue
        plain = {name.lower().replace(" ", "_"): name for name in free() if fits.get(role, bool)(name)}
        columns[role] = next((plain[name] for name in names if name in plain), None)
        if role == "label" and columns[role] is None:  # few values, each often enough to be learned
            few = [name for name in free() if 2 <= unique[name] <= len(frame) / 5]
            columns[role] = min(few, key=lambda name: unique[name], default=None)
        if role == "text" and columns[role] is None:  # long texts that mostly differ
            texts = [name for name in free() if unique[name] > len(frame) / 2 and _are_texts(cells[name])]
            columns[role] = max(texts, key=lambda name: float(cells[name].str.len().mean()), default=None)
    return GuessedColumns(**columns)


def number_columns(frame: pd.DataFrame, other_columns: Iterable[str | None]) -> tuple[str, ...]:
    """The columns that make a vector: the first column of lists, else all columns of numbers except `other_columns`.

    A column of numbers may have few gaps; rows with gaps are dropped.
    """
    used_columns = set(other_columns)
    names = [str(name) for name in frame.columns if str(name) not in used_columns]
    lists = [name for name in names if _has(frame[name], list, np.ndarray)]
    return tuple(lists[:1] or [name for name in names if np.isfinite(numbers_in(frame[name])).mean() >= 1 - _GAPS])


def given_texts(cells: pd.Series) -> pd.Series:
    """The present cells, in the form in which a label or an answer is written."""
    texts = without_missing(pa.array(cells.map(written), pa.string())).to_pandas()
    return pd.Series(texts.to_numpy(object), cells.index, dtype=object).dropna().str.strip()


def _has(cells: pd.Series, *kinds: type) -> bool:
    """Whether any cell has one of these types."""
    return bool(cells.map(lambda cell: isinstance(cell, kinds)).any())


def _are_texts(cells: pd.Series) -> bool:
    """Whether cells are mostly letters: 0.12 kg, 12 fl oz and 2026-01-02 10:00 are no texts."""
    return bool(cells.str.count(r"[^\W\d_]").mean() > max(6, cells.str.count(r"\d").mean()))

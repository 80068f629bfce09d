"""Guesses what the columns of an unknown table hold, by their names or by their content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import cohen_kappa_score

from kcm.inputs.cell_text import without_missing, written
from kcm.inputs.vectors import numbers_in
from kcm.tasks.rows import split_name

_NAMES = {
    "label": (
        "label",
        "labels",
        "category",
        "intent",
        "target",
        "class",
        "gold",
        "topic",
        "sentiment",
        "tag",
        "y",
        "queue",
        "department",
    ),
    "text": ("text", "sentence", "utterance", "prompt", "question", "query", "review", "message", "body", "content"),
    "id": ("id", "uid", "uuid", "key", "row_id", "item_id"),
    "group": ("group", "document", "user", "session", "conversation", "author", "customer", "thread"),
    "task": ("task", "domain"),
    "split": ("split",),
    "image": ("image", "picture", "img", "photo"),
}
_SELDOM_LABELS = (
    "priority",
    "status",
    "language",
    "lang",
    "country",
    "gender",
    "severity",
    "channel",
    "source",
    "date",
)
_COSTS = ("cost", "price", "usd", "currency")  # last words in the names of cost columns
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff")
_QUANTITY = r"[^\w\s]?\s?\d[\d.,:/+\-\s]*(\s?[^\W\d]+){0,2}[^\w\s]?\d?"  # 0.12 kg, $5 each, 2024-01-02 10:00
_GAPS = 0.05  # largest share of cells without a number in a column of numbers
_SAME = 0.9  # smallest share of labels among the values of a column of model answers
_SLIGHT = 0.2  # kappa up to which agreement is slight (Landis and Koch, 1977): too little for a model's answers


@dataclass(frozen=True)
class GuessedColumns:
    """The column of each kind; None if there seems to be none.

    `large` holds the answers of a large model, `cost` the cost of each answer. `vector` are columns of numbers, see
    `number_columns`.
    """

    text: str | None
    image: str | None
    label: str | None
    id: str | None
    group: str | None
    task: str | None
    split: str | None
    large: str | None
    cost: str | None = None
    vector: tuple[str, ...] = ()


def guess_columns(frame: pd.DataFrame, *, text: str | None = None, label: str | None = None) -> GuessedColumns:
    """The likely role of each column; `text` and `label` may be known already."""
    strings = {
        str(name): given_texts(frame[name]).str.strip()
        for name in frame.columns
        if not _has(frame[name], bytes, list, np.ndarray)
    }
    pictures = [str(name) for name in frame.columns if _has(frame[name], bytes)]
    pictures += [
        name for name, cells in strings.items() if len(cells) and cells.str.lower().str.endswith(_PICTURES).all()
    ]
    unique = {name: cells.nunique() for name, cells in strings.items()}
    num_rows = len(frame)

    def named(kind: str, among: Iterable[str]) -> str | None:
        plain = {name.lower().replace(" ", "_"): name for name in among}
        return next((plain[name] for name in _NAMES[kind] if name in plain), None)

    used_columns: set[str | None] = {text, label, *pictures, *_costs(frame)}
    image = named("image", pictures) or next(iter(pictures), None)

    def free() -> list[str]:
        return [name for name in strings if name not in used_columns]

    split = named("split", [name for name in free() if all(map(split_name, strings[name].unique()))])
    used_columns.add(split)
    id_ = named("id", [name for name in free() if unique[name] == num_rows])
    used_columns.add(id_)
    if label is None:
        label = named("label", free()) or _labels_by_content(free(), unique, num_rows)
        used_columns.add(label)
    if text is None:
        text = named("text", free()) or _longest(free(), strings, unique, num_rows)
        used_columns.add(text)
    large = _answers(free(), strings, label) if label in strings else None
    used_columns.add(large)
    task = named("task", [name for name in free() if 2 <= unique[name] <= 50])
    used_columns.add(task)
    group = named("group", [name for name in free() if 1 < unique[name] < num_rows])
    return GuessedColumns(text, image, label, id_, group, task, split, large, cost_column(frame, large))


def cost_column(frame: pd.DataFrame, large: str | None) -> str | None:
    """The cost of the answers in `large`: gpt_cost for gpt or gpt_answer, or else large_cost, or cost alone."""
    if large is None:
        return None
    prefixes = {name: "_".join(_words(name)[:-1]) for name in _costs(frame) if name != large}
    names = [name for name, prefix in prefixes.items() if prefix and "_".join(_words(large)).startswith(prefix)]
    return next(iter([*names, *(name for name, prefix in prefixes.items() if prefix in ("", "large"))]), None)


def _costs(frame: pd.DataFrame) -> list[str]:
    """The columns of numbers whose names mean costs."""
    cost_columns = [str(name) for name in frame.columns if _words(str(name))[-1] in _COSTS]
    return [name for name in cost_columns if _are_numbers(frame[name])]


def _has(cells: pd.Series, *kinds: type) -> bool:
    """Whether any cell has one of these types."""
    return bool(cells.map(lambda cell: isinstance(cell, kinds)).any())


def _are_numbers(cells: pd.Series) -> bool:
    """Whether every present cell is a number; the cells of a CSV file are texts."""
    texts = given_texts(cells)
    return bool(len(texts)) and not bool(np.isnan(numbers_in(texts)).any())


def given_texts(cells: pd.Series) -> pd.Series:
    """The present cells, in the form in which a label or an answer is written."""
    texts = without_missing(pa.array(cells.map(written), pa.string())).to_pandas()
    return pd.Series(texts.to_numpy(object), cells.index, dtype=object).dropna()


def _words(name: str) -> list[str]:
    return name.lower().replace(" ", "_").replace("-", "_").split("_")


def _labels_by_content(names: Iterable[str], unique: dict[str, int], num_rows: int) -> str | None:
    """The column with the fewest values, at least two, that repeats each of them often enough to be learned.

    A column whose name means something that people rarely route by comes last.
    """
    few = [name for name in names if 2 <= unique[name] <= num_rows / 5]
    return min(few, key=lambda name: (_words(name)[-1] in _SELDOM_LABELS, unique[name]), default=None)


def _longest(names: Iterable[str], strings: dict[str, pd.Series], unique: dict[str, int], num_rows: int) -> str | None:
    """The column with the longest texts that mostly differ; quantities such as 0.12 kg and times are no texts."""
    texts = [
        name
        for name in names
        if unique[name] > num_rows / 2
        and strings[name].str.contains(" ").any()
        and strings[name].str.fullmatch(_QUANTITY).mean() <= 0.5
    ]
    return max(texts, key=lambda name: float(strings[name].str.len().mean()), default=None)


def _answers(names: Iterable[str], strings: dict[str, pd.Series], label: str) -> str | None:
    """The column of a model's answers: nearly all labels, and more agreement with the label than by chance.

    It must not agree in all rows.
    """
    agreement = {}
    for name in names:
        if strings[name].equals(strings[label]):
            continue
        pairs = pd.concat([strings[name], strings[label]], axis=1, join="inner", keys=["given", "label"])
        labelled = pairs[pairs["given"].isin(pairs["label"].unique())]
        if labelled["given"].nunique() > 1 and len(labelled) >= _SAME * len(strings[name]):
            agreement[name] = cohen_kappa_score(labelled["given"], labelled["label"])
    return max(
        (name for name in agreement if agreement[name] > _SLIGHT), key=lambda name: agreement[name], default=None
    )


def number_columns(frame: pd.DataFrame, other_columns: Iterable[str | None]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The columns that make a vector if rows are neither texts nor pictures, and why other columns do not.

    The vector is the first column of lists of numbers; without one, all columns of numbers except `other_columns`.
    """
    used_columns = set(other_columns)
    names = [str(name) for name in frame.columns if str(name) not in used_columns]
    if lists := next((name for name in names if _has(frame[name], list, np.ndarray)), None):
        return (lists,), {name: f"{lists!r} holds the vector" for name in names if name != lists}
    reasons = {name: _no_numbers(frame[name]) for name in names}
    vector_columns = tuple(name for name in names if not reasons[name])
    return vector_columns, {name: reason for name, reason in reasons.items() if reason}


def _no_numbers(cells: pd.Series) -> str:
    """Why a column cannot be part of a vector; "" for numbers with few gaps (rows with gaps are dropped)."""
    is_bad = pd.Series(~np.isfinite(numbers_in(cells)), index=cells.index)
    if not is_bad.sum() > _GAPS * len(cells):
        return ""
    texts = cells[is_bad].map(written)
    nonempty = texts[texts.fillna("").str.strip() != ""]
    example = f", such as {nonempty.iloc[0]!r}" if len(nonempty) else ""
    share = "all" if is_bad.all() else f"{is_bad.sum():,} of {len(cells):,}"
    return f"{share} cells are no finite numbers{example}" if len(nonempty) else f"{share} cells are empty"


def tells_label(cells: pd.Series, labels: pd.Series) -> bool:
    """Whether a column of numbers reveals the label: each number has one label, or each label is an interval."""
    if _has(cells, list, np.ndarray):
        return False
    rows = pd.DataFrame({"cell": numbers_in(cells), "label": labels.to_numpy()}).dropna().sort_values("cell")
    by_value = rows.groupby("cell")["label"]
    if len(rows) < 2 or (by_value.nunique() > 1).any():
        return False
    num_runs = 1 + int((rows["label"] != rows["label"].shift()).iloc[1:].sum())
    return num_runs == rows["label"].nunique() or by_value.ngroups <= len(rows) / 5

"""The `recorded` adapter: answers that the user already has, looked up by item id."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from kcm.assets.digest import sha256_of
from kcm.errors import DataError
from kcm.inputs.content import Part
from kcm.inputs.tables import missing_column, read_frame
from kcm.large.base import Cost, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, LargeConfig, Resources
from kcm.large.head import LinearHead
from kcm.large.prompting.prompts import PromptMode

_PROBABILITY = "probability:"


class RecordedConfig(LargeConfig):
    """A CSV or Parquet table with one row per item.

    It has an id, a label by its name, and where known the columns `probability:NAME` for every label, `seconds`,
    `tokens`, `currency` and `error`. A row without a label is a failed answer.
    """

    prompt_modes: ClassVar[frozenset[PromptMode]] = frozenset({"none"})
    reads: ClassVar[frozenset[Part]] = frozenset()
    servable: ClassVar[bool] = False
    operational: ClassVar[frozenset[str]] = frozenset({"path"})  # by the identity

    path: str = Field(description="CSV or Parquet file with the answers.")
    id_column: str = Field(default="id", description="Column with the id of the item.")
    label_column: str = Field(default="label", description="Column with the name of the label that was answered.")

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return RecordedModel(self, label_names)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        return RecordedModel(self, label_names).identity

    @property
    def location(self) -> str:
        """The table."""
        return self.path


class RecordedModel:
    """Answers by id. Raises DataError for a missing file or column, a repeated id, or a label outside the list."""

    prompt_modes = RecordedConfig.prompt_modes

    def __init__(self, config: RecordedConfig, label_names: Sequence[str]) -> None:
        path = Path(config.path).expanduser()
        self.label_names = tuple(label_names)
        self._path = str(path)
        self._answers = _answers(read_frame(path, (".csv", ".parquet")), config, self.label_names)
        self.identity = sha256_of(path)

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """The recorded answers. Raises DataError when an item has none: that is a gap in the table, not a failure."""
        if missing := [item.id for item in items if item.id not in self._answers]:
            raise DataError(
                f"{len(missing)} items have no recorded answer, the first is {missing[0]!r}",
                where=self._path,
                mend="Add them to the table",
            )
        return [self._answers[item.id] for item in items]


def _answers(table: pd.DataFrame, config: RecordedConfig, label_names: Sequence[str]) -> dict[str, LargeAnswer]:
    for field in ("id_column", "label_column"):
        _check_column(getattr(config, field), field, table, config.path)
    index = {name: number for number, name in enumerate(label_names)}
    columns = [f"{_PROBABILITY}{name}" for name in label_names]
    with_probabilities = any(str(column).startswith(_PROBABILITY) for column in table.columns)
    for column in columns if with_probabilities else ():
        _check_column(column, "label list", table, config.path)
    answers: dict[str, LargeAnswer] = {}
    for row in table.to_dict("records"):
        item = str(row[config.id_column])
        if item in answers:
            raise DataError(f"two answers for item {item!r}", where=config.path)
        answers[item] = _answer(row, item, config, index, columns if with_probabilities else [])
    return answers


def _answer(
    row: Mapping[str, object], item: str, config: RecordedConfig, index: Mapping[str, int], columns: Sequence[str]
) -> LargeAnswer:
    place = f"{config.path}, item {item!r}"
    cost = Cost(_number(row, "seconds", place), int(_number(row, "tokens", place)), _number(row, "currency", place))
    name, error = _text(row.get(config.label_column)), _text(row.get("error"))
    if error or not name:
        return LargeAnswer(None, None, cost, error or "no label was recorded")
    if name not in index:
        nearest = difflib.get_close_matches(name, index, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(f"label {name!r} is not in the label list", where=place, mend=hint)
    if not columns:
        return LargeAnswer(index[name], None, cost)
    probabilities_C = np.array([_number(row, column, place) for column in columns], dtype=np.float32)
    if probabilities_C.min() < 0 or abs(float(probabilities_C.sum()) - 1) > 1e-3:
        raise DataError(f"the probabilities sum to {probabilities_C.sum():g}, not to 1", where=place)
    return LargeAnswer(index[name], probabilities_C / probabilities_C.sum(), cost)


def _check_column(column: str, field: str, table: pd.DataFrame, path: str) -> None:
    if column not in table.columns:
        raise missing_column(column, field, list(map(str, table.columns)), path)


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)  # NaN is the only value that differs from itself


def _number(row: Mapping[str, object], column: str, place: str) -> float:
    text = _text(row.get(column))
    try:
        return float(text) if text else 0.0
    except ValueError:
        raise DataError(f"{column} = {text!r} is not a number", where=place) from None

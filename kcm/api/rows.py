"""Inputs of `predict` as inputs of a cascade, and the cascade's answers as columns."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from kcm.bundle.answers import Answer, Failure, Input
from kcm.errors import DataError
from kcm.inputs.content import Content, Part, PartError
from kcm.inputs.location import Location
from kcm.inputs.pictures import picture_of
from kcm.inputs.tables import missing_column
from kcm.inputs.vectors import vector_in

Column: TypeAlias = str
ANSWERS = pa.schema(
    [
        ("label", pa.string()),
        ("judge_confidence", pa.float64()),
        ("answer_probability", pa.float64()),
        ("gate_score", pa.float64()),
        ("route", pa.string()),
        ("cost_s", pa.float64()),
        ("error", pa.string()),
    ]
)
OUTSIDE = "outside the promise: "  # begins the error of a degraded answer
_EVERYWHERE = Location.of(Path.cwd().anchor)


def inputs_of(
    inputs: pd.DataFrame | Iterable[str | Content | Mapping[str, Any]],
    reads: Collection[Part],
    *,
    text: Column,
    image: Column,
    task: Column,
    id: Column,
    vector: Sequence[Column] = (),
) -> list[Input]:
    """One `Input` per row, with the parts that the bundle reads.

    An empty cell gives an empty part. `vector` are the columns of a row's vector, by name or pattern; default: the
    column `features`. Raises DataError for a missing column, and for a value that is not an input.
    """
    if isinstance(inputs, str | bytes | Content | Mapping):
        raise DataError("expected many inputs, got one", where="predict", hint="Give a list of one")
    parts: dict[str, str] = {"text": text, "image": image}
    needed_columns: dict[str, str] = {part: parts[part] for part in reads if part in parts}
    columns = tuple(vector) if "vector" in reads else None
    if isinstance(inputs, pd.DataFrame):
        _require(needed_columns, list(inputs.columns))
        records: Iterable[Any] = inputs.to_dict("records")
    else:
        records = inputs
    return [_input(number, row, needed_columns, task, id, columns) for number, row in enumerate(records)]


def _input(
    number: int, row: Any, columns: Mapping[str, str], task: str, id: str, vector: Sequence[str] | None
) -> Input:
    if isinstance(row, str):
        return Input(Content(row))
    if isinstance(row, Content):
        return Input(row)
    if not isinstance(row, Mapping):
        kind = type(row).__name__
        raise DataError(f"input {number} is a {kind}", where="predict", hint="Give texts, mappings, or a DataFrame")
    _require(columns, list(row))
    text = _cell(row, columns["text"]) if "text" in columns else None
    if not isinstance(text, str | None):
        raise DataError(f"the text of input {number} is a {type(text).__name__}", where=columns["text"])
    image = _picture(number, _cell(row, columns["image"])) if "image" in columns else b""
    try:
        vector_D = None if vector is None else vector_in(row, vector)
    except PartError as error:
        raise DataError(f"input {number}: {error}", where="predict") from None
    known_task, known_id = _cell(row, task), _cell(row, id)
    return Input(
        Content(text or "", image, vector=vector_D),
        None if known_task is None else str(known_task),
        "" if known_id is None else str(known_id),
    )


def _require(columns: Mapping[str, str], names: Sequence[Any]) -> None:
    for part, column in columns.items():
        if column not in names:
            raise missing_column(column, part, [str(name) for name in names], "predict")


def _cell(row: Mapping[Any, Any], column: str) -> Any:
    """The value of a cell; None if it is missing."""
    value = row.get(column)
    return None if (isinstance(value, float) and value != value) or value is pd.NA else value


def _picture(number: int, value: Any) -> bytes:
    """The bytes of a picture; paths come from the caller, so they may lead anywhere."""
    if hasattr(value, "save"):  # a PIL image, as data sets decode their pictures
        file = io.BytesIO()
        value.save(file, "PNG")
        return file.getvalue()
    data, fault = picture_of(value, Location.of(Path.cwd()), _EVERYWHERE)
    if fault:
        raise DataError(f"input {number}: {fault}", where="predict")
    return data or b""


def free_names(columns: Iterable[str], taken_names: Collection[str]) -> dict[str, str]:
    """Free names for columns: their own names, or with the prefix kcm_ if they are taken."""
    names = {}
    for name in columns:
        names[name] = name
        while names[name] in taken_names:
            names[name] = f"kcm_{names[name]}"
    return names


def with_answers(frame: pd.DataFrame, answers: Sequence[Answer | Failure]) -> pd.DataFrame:
    """A copy of the frame with the answers' columns; no column is replaced."""
    table = frame.copy()
    names = free_names(ANSWERS.names, frame.columns)
    for name, column in zip(names.values(), answer_table(answers).columns, strict=True):
        values = column.to_numpy()
        table[name] = pd.Series(values, index=frame.index, dtype=values.dtype)  # texts: objects, None if missing
    return table


def answer_table(answers: Sequence[Answer | Failure]) -> pa.Table:
    """The columns of `ANSWERS`: for an answer all but the error, for a failure only the error.

    An answer outside the promise has both: the error says why the large model did not answer.
    """
    columns: dict[str, list[Any]] = {
        name: [None if isinstance(answer, Failure) else getattr(answer, name) for answer in answers]
        for name in ANSWERS.names[:-1]
    }
    errors = [answer.reason if isinstance(answer, Failure) else _outside_promise(answer) for answer in answers]
    return pa.table(columns | {"error": errors}, schema=ANSWERS)


def _outside_promise(answer: Answer) -> str | None:
    return f"{OUTSIDE}{answer.fault or 'the large model gave no answer'}" if answer.degraded else None

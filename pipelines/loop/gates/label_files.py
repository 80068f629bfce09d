"""The drawn items as a file for annotators, and reading their labels back.

The suffix decides the format: `.csv`, `.jsonl` (one object per line), or `.json` (tasks of Label Studio). A CSV cell
that a spreadsheet would read as a formula gets a leading apostrophe, which is removed on reading.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kcm.errors import DataError
from kcm.inputs.chunks import read_chunks
from kcm.inputs.formulas import guarded
from kcm.inputs.location import Location
from pipelines.loop.gates.items_to_label import DrawnItem

COLUMNS = ("id", "text", "task", "probability", "label", "skip")
_READ = ("id", "label", "skip")
FORMS = (".csv", ".jsonl", ".json")
_YES = ("1", "true", "yes", "x")


def write_items(items: Sequence[DrawnItem], path: Path) -> None:
    """Write items for annotation; `.jsonl` and `.json` contain pictures, `.csv` only names them by id.

    The answers of the two models are not written: an annotator who sees an answer agrees with it more often.
    """
    form = _form(path)
    if form == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([guarded(str(cell)) for cell in _row(item).values()] for item in items)
    elif form == ".jsonl":
        lines = (json.dumps(_row(item) | _picture(item), ensure_ascii=False) for item in items)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        path.write_text(json.dumps([_label_studio_task(item) for item in items], ensure_ascii=False), encoding="utf-8")


def read_answers(path: Path) -> dict[str, str | None]:
    """The label of each item by id, None if skipped; items without either are absent.

    Raises DataError, naming the item, if an item is both labelled and skipped, or has two different labels.
    """
    where = str(path)
    answers: dict[str, str | None] = {}
    for row in _rows(path):
        if missing := {"id", "label"} - row.keys():
            raise DataError(f"there is no {min(missing)!r}", where=where, hint=f"Known are {', '.join(COLUMNS)}")
        item, label, skip = ("" if (cell := row.get(name)) is None else str(cell).strip() for name in _READ)
        is_skipped = skip.lower() in _YES
        if is_skipped and label:
            raise DataError(f"{item} is both labelled and skipped", where=where, hint="Choose one")
        if answers.get(item, label or None) != (label or None):
            raise DataError(f"{item} occurs twice with two labels", where=where, hint="Keep one of the two")
        if is_skipped or label:
            answers[item] = label or None
    return answers


def _form(path: Path) -> str:
    if path.suffix.lower() not in FORMS:
        raise DataError(f"unknown kind of file {path.suffix!r}", where=str(path), hint=f"Known are {', '.join(FORMS)}")
    return path.suffix.lower()


def _row(item: DrawnItem) -> dict[str, str]:
    skip = "yes" if item.state == "skipped" else ""
    values = item.id, item.text or "", item.task or "", f"{item.probability:.6g}", item.label or "", skip
    return dict(zip(COLUMNS, values, strict=True))


def _picture(item: DrawnItem) -> dict[str, str]:
    if item.image is None:
        return {}
    kind = "png" if item.image.startswith(b"\x89PNG") else "jpeg"
    return {"image": f"data:image/{kind};base64,{base64.b64encode(item.image).decode()}"}


def _label_studio_task(item: DrawnItem) -> dict[str, Any]:
    """A task of Label Studio; an existing label becomes an annotation of the text with the control `label`."""
    columns = {name: cell for name, cell in _row(item).items() if name not in _READ[1:]} | _picture(item)
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [item.label]}}
    if item.state == "drawn":
        return {"data": columns}
    result = [] if item.label is None else [choice]
    return {"data": columns, "annotations": [{"result": result, "was_cancelled": item.label is None}]}


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, including those in tasks of Label Studio. DataError for an unreadable file."""
    _form(path)
    for chunk in read_chunks(Location.of(path), _READ.__contains__):
        for position, fault in chunk.faults.items():
            raise DataError(f"row {chunk.first + position} cannot be read: {fault}", where=str(path))
        rows = chunk.table.to_pylist() if chunk.objects is None else chunk.objects
        for position, row in enumerate(rows):
            yield from _said(row, f"{path}, row {chunk.first + position}") if "data" in row else (row,)


def _said(task: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The label in each annotation of a task of Label Studio; a cancelled annotation is a skip."""
    rows = []
    try:
        item = task["data"].get("id")
        for annotation in task.get("annotations") or ():
            results = annotation.get("result") or ()
            choices = [choice for result in results for choice in result.get("value", {}).get("choices", ())]
            if len(choices) > 1:
                raise DataError(f"{item} has {len(choices)} labels in one annotation", where=where)
            is_skipped = bool(annotation.get("was_cancelled"))
            rows.append({"id": item, "label": "" if is_skipped else "".join(choices), "skip": is_skipped})
    except (AttributeError, TypeError):  # fields of other types than Label Studio writes
        raise DataError("this is no task of Label Studio", where=where, hint="Export the project as JSON") from None
    return rows

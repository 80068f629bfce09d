"""Units of rows under the names that the log gives them, and the splits that they have had."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kcm.inputs.content import Content
from kcm.tasks.splits import Split
from kcm.tasks.units import unit_digest, unit_of
from pipelines.store.sequence import SequenceArtefact


def units_of(sequence: SequenceArtefact, key: bytes) -> dict[str, Split]:
    """The split of every unit of a sequence's rows, by its name in the log that has this key.

    Where a unit has had several splits, train wins.
    """
    found: dict[str, Split] = {}
    for _, unit, split in _units(sequence, key):
        if found.get(unit) != "train":
            found[unit] = split
    return found


def rows_of(sequence: SequenceArtefact, key: bytes, units: Collection[str]) -> list[str]:
    """The ids of a sequence's rows that belong to these units."""
    return list(dict.fromkeys(row_id for row_id, unit, _ in _units(sequence, key) if unit in units))


def _units(sequence: SequenceArtefact, key: bytes) -> Iterator[tuple[str, str, Split]]:
    """Row, unit and split. A row that did not come from the log has two units: a decision carries group or content."""
    grown = sequence.grown_tasks
    for number, task in enumerate(sequence.names.tasks):
        for row in sequence.task(number).to_pylist():
            if task in grown:
                yield row["id"], row["group"], row["split"]
                continue
            yield row["id"], unit_of(unit_digest(Content(row["text"], row["image"])), key), row["split"]
            if row["group"]:
                yield row["id"], unit_of(unit_digest(Content(), row["group"]), key), row["split"]

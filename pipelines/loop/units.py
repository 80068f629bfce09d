"""Units of rows under the names that the log gives them, and the splits that they have had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from kcm.inputs.content import Content
from kcm.tasks.splits import Split
from kcm.tasks.units import unit_digest
from pipelines.store.sequence import SequenceArtefact


class NamesUnits(Protocol):
    """Whoever has the log's key."""

    def unit_names(self, digests: Sequence[bytes]) -> list[str]:
        """The names of units in the log, by the digests of `kcm.tasks.units.unit_digest`."""
        ...


def units_of(sequence: SequenceArtefact, log: NamesUnits) -> dict[str, Split]:
    """The split of every unit of a sequence's rows, by its name in the log.

    Of rows that did not come from the log both the content and the group name a unit: a decision may carry either.
    Where a unit has had several splits, train wins.
    """
    found: dict[str, Split] = {}
    grown = sequence.grown_tasks
    for number, task in enumerate(sequence.names.tasks):
        rows = sequence.task(number)
        names = rows["group"].to_pylist() if task in grown else None
        for unit, split in _of_log(rows, names) if names else _of_content(rows, log):
            if found.get(unit) != "train":
                found[unit] = split
    return found


def _of_log(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[str, Split]]:
    return zip(names, rows["split"].to_pylist(), strict=True)


def _of_content(rows: pa.Table, log: NamesUnits) -> Iterator[tuple[str, Split]]:
    digests: list[bytes] = []
    splits: list[Split] = []
    for row in rows.select(["text", "image", "group", "split"]).to_pylist():
        digests.append(unit_digest(Content(row["text"], row["image"])))
        splits.append(row["split"])
        if row["group"]:
            digests.append(unit_digest(Content(), row["group"]))
            splits.append(row["split"])
    return zip(log.unit_names(digests), splits, strict=True)

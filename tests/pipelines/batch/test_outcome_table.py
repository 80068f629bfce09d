"""Answers become rows of the outcome table, whatever shards they lie in."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.gate import Gate
from kcm.cascade.outcome_rows import OutcomeTable
from kcm.errors import ArtefactError
from kcm.inputs.vectors import list_column
from kcm.parquet import write_table
from kcm.tasks.shards import shard_file
from pipelines.batch import outcome_table
from pipelines.batch.outcome_table import scored_parts
from pipelines.store.features import SECONDS, FeaturesArtefact
from pipelines.store.outcomes import Answers, OutcomesArtefact
from pipelines.store.sequence import Names
from tests.pipelines.made_parts import ANSWERS, ROWS

FEATURES = (
    ROWS.append_column("label", [[1, 1, 0, 0]])
    .append_column("group", [pa.nulls(4, pa.string())])
    .append_column("features", list_column(np.zeros((4, 3), dtype=np.float32)))
    .append_column(SECONDS, [np.zeros(4)])
)


def written(folder: Path, table: pa.Table, *shards: slice) -> Path:
    """A folder with parts of a table as the shards of a task."""
    folder.mkdir()
    for number, rows in enumerate(shards):
        write_table(table.slice(rows.start, rows.stop - rows.start), shard_file(folder, 0, number))
    return folder


class Known(FeaturesArtefact):
    """Features of a sequence whose names are known."""

    names = Names(("t",), ("no", "yes"), None)


def joined(folder: Path, rows: pa.Table, *shards: slice) -> OutcomeTable:
    """The outcome table of features and answers to `rows` in these shards."""
    features = written(folder / "features", FEATURES, *shards)
    outcomes = written(folder / "outcomes", Answers.of(ANSWERS, 2).table(rows), *shards)
    given: Any = (Known("features", "f", features), OutcomesArtefact("outcomes", "o", outcomes), ("validate", "test"))
    collaborator: Any = None
    parts = scored_parts(collaborator, Gate(), *given)
    return OutcomeTable.joined(part.table for part in parts)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_table, "logits", lambda _, features_ND: (np.zeros((len(features_ND), 2)),) * 2)


@pytest.mark.parametrize(
    "shards",
    [(slice(0, 4),), (slice(0, 2), slice(2, 4)), (slice(0, 1), slice(1, 3), slice(3, 3), slice(3, 4))],
    ids=["one", "a split each", "across and empty"],
)
def test_answers_stand_beside_their_rows(tmp_path: Path, shards: tuple[slice, ...]) -> None:
    table = joined(tmp_path, ROWS, *shards)
    assert table.id.tolist() == ["a", "b", "c", "d"]
    assert table.large_label.tolist() == [1, 0, -1, -1]
    assert table.large_error.tolist() == [False, False, False, True]


def test_answers_of_other_rows_are_refused(tmp_path: Path) -> None:
    other = ROWS.set_column(0, "id", [["a", "b", "d", "c"]])
    with pytest.raises(ArtefactError, match="hold different rows"):
        joined(tmp_path, other, slice(0, 4))

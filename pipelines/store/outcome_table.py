"""The large model's answers beside a collaborator's logits: the outcome table, a split of a shard at a time.

Shapes: N rows, C labels, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.large import PromptMode
from kcm.tasks.columns import matrix
from kcm.tasks.shards import task_shards
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact, in_label_list, with_none
from pipelines.store.sequence import Names


@dataclass(frozen=True, eq=False)
class OutcomePart:
    """The rows of one split of a shard: their outcome table under prompt `none`, features, and seconds that these took.

    `modes` is the same table under all prompt modes, `none` first. The collaborator knows the first `num_labels` labels
    of the table, which may have one more for none-of-these.
    """

    table: OutcomeTable
    modes: OutcomeTable
    features_ND: np.ndarray
    seconds_N: np.ndarray
    num_labels: int

    def scores(self, gate: Gate) -> np.ndarray:
        """The gate's score of every row, [N]."""
        judge_NC, small_NC = (each[:, : self.num_labels] for each in (self.table.judge_logits, self.table.small_logits))
        return gate.score(self.features_ND, judge_NC, small_NC)


def outcome_parts(
    collaborator: Collaborator,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    splits: Sequence[Split],
    prompted: Mapping[PromptMode, Path] | None = None,
) -> Iterator[OutcomePart]:
    """The outcome table of the rows of `splits`, shard by shard: task by task, split by split, in order.

    `prompted` are the folders of the answers under further prompt modes. Where none-of-these can be answered, it is the
    right answer for rows that are out of scope, and one that the collaborator cannot give: its logit is -inf.
    """
    for number, name in enumerate(features.names.tasks):
        for split in splits:
            further = {mode: _InTurn(folder, number, split) for mode, folder in (prompted or {}).items()}
            for shard, answers in zip(features.shards(number), outcomes.shards(number), strict=True):
                yield outcome_part(collaborator, name, split, shard, answers, features.names, further)


class _InTurn:
    """The rows of one split of a task's shards, taken in their order; other rows are not in memory."""

    def __init__(self, folder: Path, number: int, split: Split) -> None:
        self.folder = folder
        where = pc.field("split") == split
        self._tables = (pq.read_table(file, filters=where) for file in task_shards(folder, number))
        self._left: pa.Table | None = None

    def take(self, count: int) -> pa.Table:
        """The next rows, fewer where there are no more."""
        taken = [] if self._left is None else [self._left.slice(0, 0)]
        while self._left is None or count > sum(map(len, taken)):
            if self._left is None or not len(self._left):
                if (following := next(self._tables, None)) is None:
                    break
                self._left = following
            part = self._left.slice(0, count - sum(map(len, taken)))
            taken.append(part)
            self._left = self._left.slice(len(part))
        return pa.concat_tables(taken)


def outcome_part(
    collaborator: Collaborator,
    task: str,
    split: Split,
    shard: Path,
    answers: Path,
    names: Names,
    further: Mapping[PromptMode, _InTurn] = MappingProxyType({}),
) -> OutcomePart:
    """One split of a shard of features, with the answers to it; equal texts are one object."""
    mine = pc.field("split") == split
    row = pq.read_table(shard, filters=mine)
    answer = in_label_list(pq.read_table(answers, filters=mine), len(names.labels))
    if not row["id"].equals(answer["id"]):
        raise ArtefactError("features and outcomes hold different rows", where=f"{shard} and {answers}")
    num_answers, features_ND = len(names.answers), feature_matrix(row)
    judge_NC, small_NC = logits(collaborator, features_ND)
    label_N = row["label"].to_numpy()
    table = OutcomeTable(
        id=_objects(row["id"]),
        task=np.full(len(row), task, dtype=object),
        split=np.full(len(row), split, dtype=object),
        group=_objects(row["group"]),
        label=np.where(label_N == OUT_OF_SCOPE, num_answers - 1, label_N),
        judge_logits=with_none(judge_NC, num_answers, -np.inf),
        small_logits=with_none(small_NC, num_answers, -np.inf),
        prompt=_objects(answer["prompt"]),
        label_names=names.answers,
        **_large_columns(answer, num_answers),
    )
    modes = [_under(table, mode, rows.take(len(row)), rows.folder) for mode, rows in further.items()]
    return OutcomePart(
        table,
        concatenate([table, *modes]) if modes else table,
        features_ND,
        row[SECONDS].to_numpy(),
        judge_NC.shape[1],
    )


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    """A column of texts as an array of objects, None where there is none; equal ones are one object."""
    coded = column.combine_chunks().dictionary_encode()
    names = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    return np.asarray(names[pc.fill_null(coded.indices, len(names) - 1).to_numpy()])


def _under(table: OutcomeTable, mode: PromptMode, answer: pa.Table, folder: Path) -> OutcomeTable:
    """The rows of a table with the large model's answers under another prompt mode, which lie in a folder."""
    if answer["id"].to_pylist() != table.id.tolist():
        raise ArtefactError(f"the answers under prompt {mode!r} are not those of the same rows", where=str(folder))
    columns = _large_columns(answer, len(table.label_names))
    return replace(table, prompt=np.array([mode] * len(table), dtype=object), **columns)


def _large_columns(answer: pa.Table, num_answers: int) -> dict[str, Any]:
    return {
        "large_label": answer["large_label"].to_numpy(),
        "large_probabilities": with_none(_distributions(matrix(answer["large_probabilities"])), num_answers, 0.0),
        "large_cost": answer["large_cost"].to_numpy(),
        "large_error": answer["large_error"].to_numpy(zero_copy_only=False),
    }


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))

"""What the large model said: its answers on disk, and beside a collaborator's logits as the outcome table.

Shapes: N rows, C labels, D features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders.runtime.network import Runtime
from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.large import LargeAnswer, LinearHead, PromptMode
from kcm.learners.training.stream import list_column, matrix
from kcm.tasks.shards import task_shards
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix, read_task
from pipelines.store.sequence import Names

HEAD = "large_head.safetensors"
IDENTITY = "large.json"
FAILED = "large_error"  # the column that is true where an answer never came


class OutcomesArtefact(Artefact):
    """The large model's answer to each row of the features: prompt, label, probabilities, cost, error."""

    kind = "outcomes"

    @property
    def identity(self) -> str:
        """The identity of the large model."""
        identity: str = self._facts["identity"]
        return identity

    def shards(self, number: int) -> list[Path]:
        """The files with the answers to the rows of one task, in order."""
        return task_shards(self.folder, number)

    def task(self, number: int) -> pa.Table:
        """The answers to the rows of one task."""
        return read_task(self.folder, number)

    @property
    def runtime(self) -> Runtime | None:
        """What computed the large model's encoder; None where there is no choice, torch before there was one."""
        found: Runtime | None = self._facts.get("runtime", "torch")
        return found

    @property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        return facts

    @property
    def usage(self) -> dict[str, Any]:
        """What the answers took together, as far as it was counted: `rows`, `tokens`, `currency`."""
        stored: dict[str, Any] = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        return {name: stored[name] for name in ("rows", "tokens", "currency") if name in stored}

    @property
    def head(self) -> LinearHead | None:
        """The head of a classifier; None where the large model has none."""
        file = self.folder / HEAD
        return LinearHead.load(file) if file.exists() else None


def write_identity(folder: Path, identity: str, **took: Any) -> None:
    """Leave the large model's identity beside its answers, and what these took together."""
    write_json(folder / IDENTITY, {"identity": identity} | took)


@dataclass(frozen=True)
class Answers:
    """Answers as columns; probabilities, over the label list, are NaN where the model gave only a label.

    Labels count in the label list; the number after its last stands for none-of-these, -1 for no label at all: an
    answer outside the label list is no failure, one that never came is.
    """

    label_N: np.ndarray
    probabilities_NC: np.ndarray
    cost_N: np.ndarray  # seconds
    failed_N: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[LargeAnswer], num_labels: int) -> Answers:
        """The answers of an adapter; those beyond the label list's `num_labels` are none-of-these."""
        label_N = np.array([-1 if a.label is None else a.label for a in answers], dtype=np.int64)
        known = {row: a.probabilities for row, a in enumerate(answers) if a.probabilities is not None}
        num_answers = max(map(len, known.values()), default=num_labels)
        probabilities_NA = np.full((len(answers), num_answers), np.nan, dtype=np.float32)
        if known:
            probabilities_NA[list(known)] = list(known.values())
        return cls(
            label_N=label_N,
            probabilities_NC=over_labels(probabilities_NA, label_N, num_labels),
            cost_N=np.array([a.cost.seconds for a in answers], dtype=np.float64),
            failed_N=np.array([a.error is not None and not a.off_label for a in answers], dtype=bool),
        )

    def table(self, rows: pa.Table, prompt: PromptMode = "none") -> pa.Table:
        """The answers to `rows`, whose columns `id` and `split` are repeated."""
        return pa.table(
            {
                "id": rows["id"],
                "split": rows["split"],
                "prompt": pa.array([prompt] * len(rows), pa.string()),
                "large_label": pa.array(self.label_N, pa.int64()),
                "large_probabilities": list_column(self.probabilities_NC.astype(np.float32, copy=False)),
                "large_cost": pa.array(self.cost_N, pa.float64()),
                FAILED: pa.array(self.failed_N, pa.bool_()),
            }
        )


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
                yield _part(collaborator, name, split, shard, answers, features.names, further)


def outcome_table(
    collaborator: Collaborator, features: FeaturesArtefact, outcomes: OutcomesArtefact, splits: Sequence[Split]
) -> OutcomeTable:
    """The outcome table of all rows of `splits` under prompt `none`, in one memory."""
    return concatenate([part.table for part in outcome_parts(collaborator, features, outcomes, splits)])


class _InTurn:
    """The rows of one split of a task's shards, taken in their order; other rows are not in memory."""

    def __init__(self, folder: Path, number: int, split: Split) -> None:
        self.folder = folder
        where = pc.field("split") == split
        self._tables = (pq.read_table(file, filters=where) for file in task_shards(folder, number))
        self._left: pa.Table | None = None

    def take(self, count: int) -> pa.Table:
        """The next rows, fewer where there are no more."""
        taken = []
        while self._left is None or count > sum(map(len, taken)):
            if self._left is None or not len(self._left):
                if (following := next(self._tables, None)) is None:
                    break
                self._left = following
            part = self._left.slice(0, count - sum(map(len, taken)))
            taken.append(part)
            self._left = self._left.slice(len(part))
        return pa.concat_tables(taken)


def _part(
    collaborator: Collaborator,
    task: str,
    split: Split,
    shard: Path,
    answers: Path,
    names: Names,
    further: Mapping[PromptMode, _InTurn],
) -> OutcomePart:
    """One split of a shard; equal texts are one object."""
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
        judge_logits=_with_none(judge_NC, num_answers, -np.inf),
        small_logits=_with_none(small_NC, num_answers, -np.inf),
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


def with_prompts(
    table: OutcomeTable, folders: Mapping[PromptMode, Path], num_tasks: int, splits: Sequence[Split]
) -> OutcomeTable:
    """`table`, all under prompt `none`, followed by the same rows under each further mode, read from its folder."""
    parts = [table]
    for mode, folder in folders.items():
        of_tasks = [read_task(folder, number, split=split) for number in range(num_tasks) for split in splits]
        parts.append(_under(table, mode, pa.concat_tables(of_tasks), folder))
    return concatenate(parts)


def _under(table: OutcomeTable, mode: PromptMode, answer: pa.Table, folder: Path) -> OutcomeTable:
    """The rows of a table with the large model's answers under another prompt mode, which lie in a folder."""
    if answer["id"].to_pylist() != table.id.tolist():
        raise ArtefactError(f"the answers under prompt {mode!r} are not those of the same rows", where=str(folder))
    columns = _large_columns(answer, len(table.label_names))
    return replace(table, prompt=np.array([mode] * len(table), dtype=object), **columns)


def in_label_list(answer: pa.Table, num_labels: int) -> pa.Table:
    """Answers under the label list of the sequence, which may have grown since they were given.

    Labels that came later have probability 0, and none-of-these has the number after the last label.
    """
    if (known := answer["large_probabilities"].type.list_size) == num_labels:
        return answer
    label_N = answer["large_label"].to_numpy()
    wider_NC = _with_none(matrix(answer["large_probabilities"]), num_labels, 0.0)
    columns = {
        "large_label": pa.array(np.where(label_N == known, num_labels, label_N)),
        "large_probabilities": list_column(wider_NC),
    }
    for name, column in columns.items():
        answer = answer.set_column(answer.column_names.index(name), name, column)
    return answer


def _large_columns(answer: pa.Table, num_answers: int) -> dict[str, Any]:
    return {
        "large_label": answer["large_label"].to_numpy(),
        "large_probabilities": _with_none(_distributions(matrix(answer["large_probabilities"])), num_answers, 0.0),
        "large_cost": answer["large_cost"].to_numpy(),
        "large_error": answer["large_error"].to_numpy(zero_copy_only=False),
    }


def _with_none(values_NC: np.ndarray, num_answers: int, value: float) -> np.ndarray:
    """The columns of the label list, then one of `value` for none-of-these where it can be answered; NaN rows stay."""
    missing = num_answers - values_NC.shape[1]
    padded = np.pad(values_NC, ((0, 0), (0, missing)), constant_values=value)
    padded[np.isnan(values_NC).any(axis=1)] = np.nan
    return padded


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))


def over_labels(probabilities_NC: np.ndarray, label_N: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities float32 over the label list, which teach, of those over all answers.

    NaN where there are none, or none-of-these was answered.
    """
    known_NC = probabilities_NC[:, :num_labels] / probabilities_NC[:, :num_labels].sum(axis=1, keepdims=True)
    known_NC[(label_N < 0) | (label_N >= num_labels)] = np.nan
    return known_NC.astype(np.float32)

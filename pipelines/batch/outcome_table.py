"""The large model's answers with a collaborator's logits: the outcome table, a split of a shard at a time.

No node reads all shards: any free process can compute a part of the table.

Shapes: N rows, C labels, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.outcome_rows import MeasuredRows, OutcomeTable, ScoredOutcomes, Split
from kcm.cascade.policy import Policy
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import matrix
from kcm.parquet import open_writer, read_table
from kcm.tasks import Split as FileSplit
from pipelines.batch.mapping import map_items
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact, in_label_list, with_none
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage


@dataclass(frozen=True, eq=False)
class OutcomePart:
    """The rows of one split of a shard: their outcome table, features, and seconds of encoding.

    The collaborator knows the first `num_labels` labels
    of the table, which may have one more label for none-of-these. A part from another process holds the gate's scores
    as `score_N`, and the features of some rows only.
    """

    table: OutcomeTable
    features_ND: np.ndarray
    seconds_N: np.ndarray
    num_labels: int
    score_N: np.ndarray | None = None

    def scores(self, gate: Gate) -> np.ndarray:
        """The gate's score of every row, [N]."""
        if self.score_N is not None:
            return self.score_N
        judge_NC, small_NC = (
            logits_NC[:, : self.num_labels] for logits_NC in (self.table.judge_logits, self.table.small_logits)
        )
        return gate.score(self.features_ND, judge_NC, small_NC)

    def scored(self, gate: Gate, shown: float = 0.0) -> OutcomePart:
        """A copy with the gate's scores, and the features of a drawn share of the rows only, to save room."""
        return replace(self, features_ND=self.features_ND[drawn(self.table.id, shown)], score_N=self.scores(gate))


@dataclass(frozen=True, eq=False)
class PartRows:
    """The rows of one split of a shard with their features and answers, as stored.

    `source` is the split in the files: `train` for train rows that choose gate and policy in place of validate rows.
    """

    task: int
    split: Split
    source: FileSplit
    rows: pa.Table
    answers: pa.Table

    def filtered(self, mask_N: np.ndarray) -> PartRows:
        """Some of the rows, with their answers."""
        mask = pa.array(mask_N)
        return replace(self, rows=self.rows.filter(mask), answers=self.answers.filter(mask))


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Logits of train rows by models that never saw their units, [R, C] each in float32, by the rows' ids."""

    ids: pd.Index[str]
    judge_RC: np.ndarray
    small_RC: np.ndarray

    def save(self, path: Path) -> None:
        """Write them to a file."""
        np.savez(path, ids=self.ids.to_numpy(dtype=str), judge=self.judge_RC, small=self.small_RC)

    @classmethod
    def load(cls, path: Path) -> LeftOut:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(pd.Index(stored["ids"].astype(object)), stored["judge"], stored["small"])

    def known(self, part: PartRows) -> PartRows:
        """The rows with logits in this object, and the rows out of scope, from which no network learns."""
        is_out_of_scope_N = part.rows["label"].to_numpy() == OUT_OF_SCOPE
        return part.filtered(is_out_of_scope_N | (self._positions(part.rows["id"]) >= 0))

    def logits(
        self, collaborator: Collaborator, ids: pa.ChunkedArray, features_ND: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits of rows, [N, C] each: from this object, or else from the collaborator."""
        position_N = self._positions(ids)
        is_new_N = position_N < 0
        judge_NC, small_NC = (own_RC[position_N].astype(np.float64) for own_RC in (self.judge_RC, self.small_RC))
        if is_new_N.any():
            judge_NC[is_new_N], small_NC[is_new_N] = logits(collaborator, features_ND[is_new_N])
        return judge_NC, small_NC

    def _positions(self, ids: pa.ChunkedArray) -> np.ndarray:
        return np.asarray(self.ids.get_indexer(pd.Index(ids.to_pylist(), dtype=object)))


@dataclass(frozen=True)
class PartFiles:
    """Where one split of a shard is read: shards of features, and of the answers to the same rows."""

    task: int
    split: Split
    source: FileSplit
    features: Path
    answers: Path

    @classmethod
    def all_of(cls, features: FeaturesArtefact, outcomes: OutcomesArtefact, splits: Sequence[Split]) -> list[PartFiles]:
        """All shards with rows of `splits`, task by task, split by split, in order; at least one for each.

        For validate, the shards hold the rows that choose gate and policy, see `FeaturesArtefact.stored_split`.
        """
        files: list[PartFiles] = []
        for number in range(len(features.names.tasks)):
            shards = list(zip(features.shards(number), outcomes.shards(number), strict=True))
            for split in splits:
                source = features.stored_split(number, split)
                holding = features.holding(number, source)
                files += [cls(number, split, source, *shards[position]) for position in holding]
        return files

    def read(self, names: Names, storage: Storage) -> PartRows:
        """The rows; from a remote file, only their row groups are fetched.

        Raises ArtefactError if the answers belong to other rows, and for a damaged file.
        """
        in_split = pc.field("split") == self.source
        rows = read_table(storage.readable(self.features), where=in_split)
        answers = in_label_list(read_table(storage.readable(self.answers), where=in_split), len(names.labels))
        if not rows["id"].equals(answers["id"]):
            where = f"{self.features} and {self.answers}"
            raise ArtefactError("features and outcomes hold different rows", where=where)
        return PartRows(self.task, self.split, self.source, rows, answers)


def part_rows(features: FeaturesArtefact, outcomes: OutcomesArtefact, splits: Sequence[Split]) -> Iterator[PartRows]:
    """The rows of `splits`, shard by shard: task by task, split by split, in order."""
    for files in PartFiles.all_of(features, outcomes, splits):
        yield files.read(features.names, features.storage)


def outcome_part(
    collaborator: Collaborator, part: PartRows, names: Names, left_out: LeftOut | None = None
) -> OutcomePart:
    """The outcome table of one split of a shard; equal texts are one object.

    If none-of-these is a possible answer, it is the right answer for rows out of scope. The collaborator cannot give
    it: its logit is -inf. Train rows have the logits of `left_out`; train rows that were not drawn for `left_out` are
    not in the table.
    """
    unseen = left_out if part.source == "train" else None
    assert unseen or part.source != "train"  # a learner that cannot compute it was refused
    if unseen:
        part = unseen.known(part)
    row, num_answers, features_ND = part.rows, len(names.answers), feature_matrix(part.rows)
    if unseen:
        judge_NC, small_NC = unseen.logits(collaborator, row["id"], features_ND)
    else:
        judge_NC, small_NC = logits(collaborator, features_ND)
    label_N, answers = row["label"].to_numpy(), part.answers
    table = OutcomeTable(
        id=_objects(row["id"]),
        task=np.full(len(row), names.tasks[part.task], dtype=object),
        split=np.full(len(row), part.split, dtype=object),
        group=_objects(row["group"]),
        label=np.where(label_N == OUT_OF_SCOPE, num_answers - 1, label_N),
        judge_logits=with_none(judge_NC, num_answers, -np.inf),
        small_logits=with_none(small_NC, num_answers, -np.inf),
        label_names=names.answers,
        large_label=answers["large_label"].to_numpy(),
        large_probabilities=with_none(_distributions(matrix(answers["large_probabilities"])), num_answers, 0.0),
        large_cost=answers["large_cost"].to_numpy(),
        large_error=answers["large_error"].to_numpy(zero_copy_only=False),
    )
    return OutcomePart(table, features_ND, row[SECONDS].to_numpy(), judge_NC.shape[1])


def scored_parts(
    collaborator: Collaborator,
    gate: Gate,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    splits: Sequence[Split],
    shown: float = 0.0,
    left_out: LeftOut | None = None,
) -> Iterator[OutcomePart]:
    """The outcome table, a part for each shard and split, with scores, and the features of a drawn share of the rows.

    `shown` is the share; a hash of its id decides whether a row is in the sample. `left_out` are the logits of train
    rows that choose gate and policy in place of validate rows.
    """
    score = partial(_scored, collaborator, gate, features.names, features.storage, shown, left_out)
    return map_items(score, PartFiles.all_of(features, outcomes, splits))


def _scored(
    collaborator: Collaborator,
    gate: Gate,
    names: Names,
    storage: Storage,
    shown: float,
    left_out: LeftOut | None,
    files: PartFiles,
) -> OutcomePart:
    rows = files.read(names, storage)
    return outcome_part(collaborator, rows, names, left_out).scored(gate, shown)


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    """A column of texts as an array of objects, None for a missing text; equal texts are one object."""
    coded = column.combine_chunks().dictionary_encode()
    names = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    return np.asarray(names[pc.fill_null(coded.indices, len(names) - 1).to_numpy()])


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))


def drawn(name_N: np.ndarray, share: float) -> np.ndarray:
    """Which names are in a sample of about this share, [N]; every process draws the same names."""
    if share >= 1:
        return np.ones(len(name_N), dtype=bool)
    return np.asarray(pd.util.hash_array(name_N, categorize=False) < np.uint64(share * 2**64))


def kept_parts(parts: Iterable[OutcomePart], path: Path) -> Iterator[OutcomePart]:
    """The parts of an outcome table, each written to a file before it is yielded."""
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            rows = part.table.to_arrow()
            writer = writer or stack.enter_context(open_writer(path, rows.schema))
            writer.write_table(rows)
            yield part


@dataclass(frozen=True)
class ScoredTable:
    """The rows of an outcome table without their logits, with gate scores and costs, in the order of the table.

    Validate scores are out-of-fold.
    """

    table: MeasuredRows

    @classmethod
    def of(cls, parts: Iterable[OutcomePart], gate: Gate, validate_scores: np.ndarray, policy: Policy) -> ScoredTable:
        """Score rows with the gate, as in serving; validate rows keep the scores that the search of the policy saw.

        The validate rows of all parts are the rows of the search, in the same order.
        """
        measured, searched = [], 0
        for part in parts:
            is_validate = part.table.split == "validate"
            scores = part.scores(gate).copy()  # what came from another process cannot be written to
            scores[is_validate] = validate_scores[searched : searched + int(is_validate.sum())]
            searched += int(is_validate.sum())
            measured.append(MeasuredRows.of(part.table, scores, part.seconds_N, policy.temperature))
        return cls(MeasuredRows.joined(measured))

    @property
    def measured(self) -> Split:
        """The split that is measured: test, or without test rows the split that chose gate and policy."""
        return "test" if (self.table.split == "test").any() else "validate"

    def mask(self, split: str, task: str | None = None) -> np.ndarray:
        """Rows of a split, and of a task if one is named."""
        rows: np.ndarray = self.table.split == split
        return rows if task is None else rows & (self.table.task == task)

    @property
    def judged(self) -> MeasuredRows:
        """The measured rows, on which the judge's calibration is measured."""
        return self.table.select(self.mask(self.measured))

    def rows(self, split: str, task: str | None = None) -> ScoredOutcomes:
        """The scored rows of a split, and of a task if one is named."""
        return self.scored(self.mask(split, task))

    def scored(self, mask: np.ndarray) -> ScoredOutcomes:
        """Some rows, as frontier and certificate read them."""
        rows = self.table.select(mask)
        return ScoredOutcomes.of(rows, rows.score)

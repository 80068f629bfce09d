"""Prompts of the tuned small side, for one shard at a time: the questions with them, or what a mask makes of answers.

Shapes: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from kcm.cascade.table import SPLITS, OutcomeTable
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.large import Prompt, PromptMode, Prompts
from kcm.large.adapters.classifier import masked
from kcm.parquet import read_table
from pipelines.batch.asking import PROMPT
from pipelines.batch.shards import write_shard
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcome_table import PartFiles, outcome_part
from pipelines.store.outcomes import Answers, OutcomesArtefact, over_labels
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage


@dataclass(frozen=True)
class PromptedShard:
    """A shard of a task: its rows, their features, and the large model's answers under prompt `none`."""

    task: int
    rows: Path
    features: Path
    answers: Path

    @classmethod
    def all_of(cls, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> list[PromptedShard]:
        """The shards of all tasks, in order."""
        return [
            cls(task, *files)
            for task in range(len(features.names.tasks))
            for files in zip(features.sequence.shards(task), features.shards(task), outcomes.shards(task), strict=True)
        ]


@dataclass(frozen=True)
class Prompter:
    """What of a collaborator writes prompts for the large model."""

    collaborator: Collaborator
    temperature: float
    prompts: Prompts
    names: Names

    def tables(
        self, shard: PromptedShard, mode: PromptMode, storage: Storage
    ) -> Iterator[tuple[OutcomeTable, list[Prompt]]]:
        """The outcome table of a shard, which has no train rows, and the prompts of its rows; split by split."""
        for split in SPLITS:
            files = PartFiles(shard.task, split, split, shard.features, shard.answers)
            part = outcome_part(self.collaborator, files.read(self.names, storage.readable), self.names)
            small_NC = softmax(part.table.small_logits[:, : part.num_labels] / self.temperature, axis=1)
            yield part.table, [self.prompts.write(mode, small_C) for small_C in small_NC]


def write_questions(prompter: Prompter, mode: PromptMode, storage: Storage, folder: Path, shard: PromptedShard) -> Path:
    """Write the rows of a shard with their prompts to a shard of the same name in `folder`; where that is.

    Raises ArtefactError when the features are those of other rows.
    """

    def questions() -> Iterator[pa.Table]:
        for split, (table, prompts) in zip(SPLITS, prompter.tables(shard, mode, storage), strict=True):
            rows = read_table(storage.readable(shard.rows), where=pc.field("split") == split)
            if rows["id"].to_pylist() != table.id.tolist():
                raise ArtefactError("rows and features are not the same", where=f"{shard.rows} and {shard.features}")
            yield rows.append_column(
                "prompt", pa.array([PROMPT.dump_json(prompt).decode() for prompt in prompts], pa.string())
            )

    target = folder / shard.rows.name
    write_shard(storage, questions(), target)
    return target


def write_masked(prompter: Prompter, mode: PromptMode, storage: Storage, folder: Path, shard: PromptedShard) -> int:
    """Write a classifier's answers under hard prompts, which are its own, masked, to a shard; its number of rows."""
    num_labels, made = len(prompter.names.labels), []
    for table, prompts in prompter.tables(shard, mode, storage):
        probabilities_NC = masked(table.large_probabilities[:, :num_labels].astype(np.float32), prompts)
        label_N = np.where(np.isfinite(probabilities_NC).all(axis=1), probabilities_NC.argmax(axis=1), -1)
        distributions_NC = over_labels(probabilities_NC, label_N, num_labels)
        answered = Answers(label_N, distributions_NC, table.large_cost, label_N < 0)
        rows = pa.table({name: pa.array(getattr(table, name), pa.string()) for name in ("id", "split")})
        made.append(answered.table(rows, mode))
    write_shard(storage, made, folder / shard.rows.name)
    return sum(map(len, made))

"""Prompts of the tuned small side, for one shard at a time: the questions with them, or what a mask makes of answers.

Shapes: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import softmax

from kcm.cascade.table import SPLITS, OutcomeTable
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.large import Prompt, PromptMode, Prompts
from kcm.large.adapters.classifier import answers_from, masked
from kcm.large.base import Cost
from kcm.parquet import read_table
from kcm.tasks.shards import ShardWriter, shard_file
from pipelines.batch.asking import written_prompt
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcome_table import PartFiles, outcome_part
from pipelines.store.outcomes import Answers, OutcomesArtefact
from pipelines.store.sequence import Names
from pipelines.store.storage import Kept, Storage


@dataclass(frozen=True)
class PromptedShard:
    """Shard `number` of a task: its rows, their features, and the large model's answers under prompt `none`."""

    task: int
    number: int
    rows: Path
    features: Path
    answers: Path

    @classmethod
    def all_of(cls, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> list[PromptedShard]:
        """The shards of all tasks, in order."""
        return [
            cls(task, number, *files)
            for task in range(len(features.names.tasks))
            for number, files in enumerate(
                zip(features.sequence.shards(task), features.shards(task), outcomes.shards(task), strict=True)
            )
        ]


@dataclass(frozen=True)
class Prompter:
    """What of a collaborator writes prompts for the large model."""

    collaborator: Collaborator
    temperature: float
    prompts: Prompts
    names: Names

    def tables(self, shard: PromptedShard, mode: PromptMode) -> Iterator[tuple[OutcomeTable, list[Prompt]]]:
        """The outcome table of a shard, which has no train rows, and the prompts of its rows; split by split."""
        for split in SPLITS:
            files = PartFiles(shard.task, split, shard.features, shard.answers)
            part = outcome_part(self.collaborator, files.read(self.names), self.names)
            small_NC = softmax(part.table.small_logits[:, : part.num_labels] / self.temperature, axis=1)
            yield part.table, [self.prompts.write(mode, small_C) for small_C in small_NC]


def write_questions(prompter: Prompter, mode: PromptMode, shard: PromptedShard, folder: Path, storage: Storage) -> Kept:
    """Write the rows of a shard with their prompts to a shard of the same name, which is kept.

    Raises ArtefactError when the features are those of other rows.
    """
    for path in (shard.rows, shard.features, shard.answers):
        storage.fetch(path)
    folder.mkdir(parents=True, exist_ok=True)
    schema = pq.read_schema(shard.rows).append(pa.field("prompt", pa.string()))
    with ShardWriter(folder, shard.task, schema, first_shard=shard.number) as writer:
        for split, (table, prompts) in zip(SPLITS, prompter.tables(shard, mode), strict=True):
            rows = read_table(shard.rows, where=pc.field("split") == split)
            if rows["id"].to_pylist() != table.id.tolist():
                raise ArtefactError("rows and features are not the same", where=f"{shard.rows} and {shard.features}")
            writer.write(rows.append_column("prompt", pa.array(map(written_prompt, prompts), pa.string())))
    return storage.hand_over(shard_file(folder, shard.task, shard.number))


def write_masked(
    prompter: Prompter, mode: PromptMode, shard: PromptedShard, folder: Path, storage: Storage
) -> tuple[Kept, int]:
    """Write a classifier's answers under hard prompts, which are its own, masked; the file and its number of rows."""
    for path in (shard.features, shard.answers):
        storage.fetch(path)
    folder.mkdir(parents=True, exist_ok=True)
    num_labels, made = len(prompter.names.labels), []
    for table, prompts in prompter.tables(shard, mode):
        probabilities_NC = masked(table.large_probabilities[:, :num_labels].astype(np.float32), prompts)
        answers = zip(answers_from(probabilities_NC, Cost()), table.large_cost, strict=True)
        answered = Answers.of([replace(answer, cost=Cost(seconds)) for answer, seconds in answers], num_labels)
        rows = pa.table({name: pa.array(getattr(table, name), pa.string()) for name in ("id", "split")})
        made.append(answered.table(rows, mode))
    with ShardWriter(folder, shard.task, made[0].schema, first_shard=shard.number) as writer:
        writer.write(pa.concat_tables(made))
    return storage.hand_over(shard_file(folder, shard.task, shard.number)), sum(map(len, made))

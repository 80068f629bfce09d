"""The outcome table with a gate's scores, a part of it by whatever process is free: no node reads all shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from kcm.cascade.gate import Gate
from kcm.cascade.table import Split
from kcm.collaborator.collaborator import Collaborator
from kcm.large import PromptMode
from pipelines.batch.mapping import map_items
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcome_table import LeftOut, OutcomePart, PartFiles, outcome_part
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage


def scored_parts(
    collaborator: Collaborator,
    gate: Gate,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    splits: Sequence[Split],
    prompted: Mapping[PromptMode, Path] | None = None,
    shown: float = 0.0,
    left_out: LeftOut | None = None,
) -> Iterator[OutcomePart]:
    """The outcome table, a part for each shard and split, with scores, and the features of a drawn share of the rows.

    `prompted` are the folders of the answers under further prompt modes. `shown` is the share; a row is in the sample
    by a hash of its id, whatever part it lies in. `left_out` are the logits of train rows that choose in place of
    validate rows.
    """
    score = partial(_scored, collaborator, gate, features.names, features.storage, shown, left_out)
    return map_items(score, PartFiles.all_of(features, outcomes, splits, prompted))


def _scored(
    collaborator: Collaborator,
    gate: Gate,
    names: Names,
    storage: Storage | None,
    shown: float,
    left_out: LeftOut | None,
    files: PartFiles,
) -> OutcomePart:
    rows = files.read(names, storage.readable if storage else Path)
    return outcome_part(collaborator, rows, names, left_out).scored(gate, shown)

"""A version compared with the champion on test rows: the promotion gates that need no traffic.

The artefacts of its own run measure each version, encoder and large model included; ids pair the rows that both know.
Nothing is encoded or requested again. The large model's answers are those under the task prompt.

Shapes: N test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_encoder
from kcm.bundle.runtime import SmallSide, probe_of
from kcm.errors import KcmError
from pipelines.batch.outcome_table import scored_parts
from pipelines.registry import gates
from pipelines.registry.gates import GateConfig, Paired, PromotionGate
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact


@dataclass(frozen=True)
class Answered:
    """A cascade's decisions on its test rows: kept or not, right or not, [N]."""

    id: NDArray[np.object_]
    task: NDArray[np.object_]
    group: NDArray[np.object_]
    kept: NDArray[np.bool_]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Version:
    """A bundle, with the features and large answers from which it was made."""

    bundle: Bundle
    features: FeaturesArtefact
    outcomes: OutcomesArtefact

    @classmethod
    def of(cls, artefact: Artefact, bundle: Path) -> Self:
        """The version in an artefact of stage `register`, whose bundle is in a folder."""
        return cls(
            Bundle.read(bundle),
            artefact.source(FeaturesArtefact, "features"),
            artefact.source(OutcomesArtefact, "outcomes"),
        )

    @cached_property
    def answered(self) -> Answered:
        """The answers to all test rows."""
        bundle = self.bundle
        ids, tasks, groups, keeps, correct = [], [], [], [], []
        for part in scored_parts(bundle.collaborator, bundle.gate, self.features, self.outcomes, ("test",)):
            table = part.table
            keeps.append(bundle.policy.keep(part.scores(bundle.gate), table.task))
            correct.append(np.where(keeps[-1], table.small_correct, table.large_correct))
            tasks.append(table.task)
            groups.append(table.group)
            ids.append(table.id)
        return Answered(
            id=np.concatenate(ids),
            task=np.concatenate(tasks),
            group=np.concatenate(groups),
            kept=np.concatenate(keeps),
            right=np.concatenate(correct),
        )


def old_tasks(champion: Version, challenger: Version) -> dict[str, Paired]:
    """Correctness of both cascades on the test rows of each of the champion's tasks, for rows that both know."""
    before, after = champion.answered, challenger.answered
    names = champion.bundle.task_names
    measured_tasks = [task for task in names if (before.task == task).any()] or names  # unknown without test rows
    positions = {task: _common(champion, challenger, task) for task in measured_tasks}
    return {
        task: Paired(before.right[before_N], after.right[after_N], before.group[before_N])
        for task, (before_N, after_N) in positions.items()
    }


def kept_on_old_tasks(champion: Version, challenger: Version) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which test rows of the champion's tasks each version keeps, [N], of the rows that both know."""
    before_N, after_N = _common(champion, challenger, None)
    is_old_N = np.isin(champion.answered.task[before_N], champion.bundle.task_names)
    return champion.answered.kept[before_N][is_old_N], challenger.answered.kept[after_N][is_old_N]


def without_traffic(
    champion: Version, challenger: Version, limits: GateConfig, assets_path: Path
) -> list[PromotionGate]:
    """The verdicts on a version of `kcm run`, cheap gates first.

    Only the first gate if the bundle does not load; nothing is compared if the version has no certificate.
    """
    scores = probed(challenger.bundle, assets_path)
    if scores.verdict == "fail":
        return [scores]
    if not challenger.bundle.certificates:
        return [scores, PromotionGate(name="certificate", verdict="undecided", reason="it has no certificate")]
    before, after = champion.answered, challenger.answered
    before_N, after_N = _common(champion, challenger, None)
    keeps = before.kept[before_N], after.kept[after_N]
    compared = against_champion(champion, challenger, keeps, before.group[before_N], limits)
    return [scores, gates.certified(challenger.bundle.certificates[None]), *compared]


def against_champion(
    champion: Version,
    challenger: Version,
    keeps: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    unit_N: NDArray[np.object_],
    limits: GateConfig,
) -> list[PromotionGate]:
    """The gates that compare both versions: old tasks, and calls on the same items [N], which each keeps or not."""
    return [
        gates.old_tasks(old_tasks(champion, challenger), limits.max_old_task_loss),
        gates.call_rate(~keeps[0], ~keeps[1], unit_N),
    ]


def probed(bundle: Bundle, assets_path: Path) -> PromotionGate:
    """Whether the bundle answers an input that every model must be able to read."""
    try:
        judgement = SmallSide(bundle, load_encoder(bundle, assets_path)).judge([Input(probe_of(bundle))])
    except KcmError as error:
        return gates.answers_probe(str(error), 1)
    return gates.answers_probe(None, len(judgement))


def _common(champion: Version, challenger: Version, task: str | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the test rows that both know, in one order; of one task, or of all."""
    before, after = champion.answered, challenger.answered
    of_task_N = np.ones(len(before.id), dtype=bool) if task is None else before.task == task
    after_N = pd.Index(after.id).get_indexer(before.id)
    before_N = np.flatnonzero(of_task_N & (after_N >= 0))
    return before_N, after_N[before_N]

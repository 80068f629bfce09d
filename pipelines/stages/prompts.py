"""Stage `prompts`: the large model's answers under prompts of the tuned small side, and the choice of the best mode.

Prompts need the small model's answers, so this stage follows the search; it reads validate, certify and test rows. Its
artefact is that of the search, with the policy of the best mode. A run without prompt modes skips it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from kcm.cascade.policy import Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import TuneConfig, find_policy
from kcm.cascade.table import SPLITS, OutcomeTable
from kcm.certify.certificate import CertificateConfig, certified_keep_rate
from kcm.certify.ledger import look_delta
from kcm.errors import ConfigError
from kcm.large import (
    LargeAnswer,
    LargeConfig,
    Prompt,
    PromptMode,
    Prompts,
    PromptsConfig,
    hard_candidates,
)
from kcm.large.adapters.classifier import answers_from, masked
from kcm.large.base import Cost
from kcm.tasks.sequence import read_shard
from kcm.tasks.shards import ShardWriter, task_shards
from pipelines.batch.asking import LargeSpec, ask_shards, written_prompt
from pipelines.batch.pool import place
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact, write_rows
from pipelines.store.outcome_table import outcome_table, with_prompts
from pipelines.store.outcomes import Answers, OutcomesArtefact
from pipelines.store.sequence import Names, SequenceArtefact
from pipelines.training.artefacts import Tuned, TunedArtefact, save_prompts


class Prompting(Plan):
    """The large model, the prompt modes, and how the best mode is chosen."""

    large: LargeConfig
    identity: str
    device: str
    modes: tuple[PromptMode, ...]
    prompts: PromptsConfig
    max_loss: float
    certificate: CertificateConfig

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> None:
        """What the search left and `prompts.json`, with the answers under each mode below `<name>/<mode>/`."""
        names = features.names
        for name in tuned.plan.config.collaborators:
            folder = attempt.folder / name
            shutil.copytree(tuned.folder / name, folder)
            found = tuned.load(name)
            table = outcome_table(found.collaborator, features, outcomes, SPLITS)
            writer = Prompted(self, names, found, self._freeze(found, table, names), features.sequence)
            folders = {mode: folder / mode for mode in self.modes if mode != "none"}
            took = {
                mode: writer.answer(table, mode, below, attempt, attempt.scratch / name / mode)
                for mode, below in folders.items()
            }
            policy, objectives = self._best(found, with_prompts(table, folders, len(names.tasks), SPLITS))
            save_prompts(folder, policy, writer.prompts, objectives, took)

    def _freeze(self, found: Tuned, table: OutcomeTable, names: Names) -> Prompts:
        """What writes the prompts; the candidates of the hard mode come from validate rows alone."""
        rows = table.where(split="validate")
        is_kept_N = found.policy.keep(found.validate_scores, rows.task)
        candidates = hard_candidates(
            rows.label, is_kept_N & rows.small_correct, len(names.answers), self.prompts.reliability
        )
        return Prompts(top_k=self.prompts.top_k, candidates=candidates)

    def _best(self, tuned: Tuned, table: OutcomeTable) -> tuple[Policy, dict[str, dict[str, float]]]:
        """The policy of the mode of which a certificate should leave most, and what each mode reaches on validate."""
        policies: dict[str, Policy] = {}
        objectives: dict[str, dict[str, float]] = {}
        for mode in self.modes:
            part = table.where(split="validate", prompt=mode)
            rows = ScoredOutcomes.of(part, tuned.validate_scores)
            found = find_policy(rows, tuned.gate, tuned.policy.scope, self.max_loss)
            first_look = look_delta(self.certificate.delta, 1)
            keep_rate = certified_keep_rate(found.policy, rows, self.certificate, first_look)
            policies[mode] = found.policy.model_copy(update={"prompt": mode})
            objectives[mode] = {"promised": keep_rate, "calls_saved": found.calls_saved, "area": found.area}
        best = max(policies, key=lambda mode: tuple(objectives[mode].values()))
        return policies[best], objectives


@dataclass(frozen=True)
class Prompted:
    """One collaborator that writes prompts for the large model."""

    plan: Prompting
    names: Names
    found: Tuned
    prompts: Prompts
    sequence: SequenceArtefact

    def answer(
        self, table: OutcomeTable, mode: PromptMode, folder: Path, attempt: Attempt, scratch: Path
    ) -> dict[str, Any]:
        """Write the answers to all rows under a mode, an outcomes file per task; gives what they took together."""
        large, num_labels = self.plan.large, len(self.names.labels)
        small_NC = softmax(table.small_logits[:, :num_labels] / self.found.policy.temperature, axis=1)
        prompts = [self.prompts.write(mode, small_C) for small_C in small_NC]
        folder.mkdir()
        if large.fits_on_train:  # a mask tells its answers without asking
            answers = _masked(table, prompts, num_labels)
            for number, name in enumerate(self.names.tasks):
                of_task = np.flatnonzero(table.task == name)
                rows = pa.table({"id": table.id[of_task].tolist(), "split": table.split[of_task].tolist()})
                mine = Answers.of([answers[row] for row in of_task], num_labels)
                write_rows(folder, number, mine.table(rows, mode))
            return {"rows": len(table)}
        questions = self._questions(prompts, scratch / "questions")
        spec = LargeSpec(large, self.names.answers, num_labels)
        made, took = ask_shards(attempt.context, spec, questions, mode, scratch=scratch, bar=attempt.bar)
        place(made, folder)
        return took

    def _questions(self, prompts: Sequence[Prompt], folder: Path) -> dict[str, Path]:
        """The rows of the outcome table with their prompts, as shards of all tasks."""
        folder.mkdir(parents=True, exist_ok=True)
        written, found = iter(prompts), {}
        for number in range(len(self.names.tasks)):
            files = task_shards(self.sequence.folder, number)
            schema = read_shard(files[0]).schema.append(pa.field("prompt", pa.string()))
            with ShardWriter(folder, number, schema) as writer:
                for file in files:  # split by split, as the table has them
                    rows = read_shard(file)
                    rows = rows.filter(pc.not_equal(rows["split"], "train"))
                    shown = pa.array([written_prompt(next(written)) for _ in range(len(rows))], pa.string())
                    writer.write(rows.append_column("prompt", shown))
            found |= {file.name: file for file in task_shards(folder, number)}
        return found


def _masked(table: OutcomeTable, prompts: Sequence[Prompt], num_labels: int) -> list[LargeAnswer]:
    """A classifier's answers under hard prompts: its own answers, masked."""
    probabilities_NC = masked(table.large_probabilities[:, :num_labels].astype(np.float32), prompts)
    answers = answers_from(probabilities_NC, Cost())
    return [replace(answer, cost=Cost(seconds)) for answer, seconds in zip(answers, table.large_cost, strict=True)]


class ChoosePrompts(Stage):
    """For each collaborator `<name>/`: what `tune` wrote, with the policy of the best mode; `prompts.json`; answers."""

    stage, version = "prompts", 1
    reads, writes = ("features", "outcomes", "tuned"), TunedArtefact

    large: LargeConfig
    tune: TuneConfig
    prompts: PromptsConfig
    certificate: CertificateConfig

    def check(self) -> None:
        """Raise ConfigError for a mode that the large model or the certificate does not support."""
        modes = self._modes
        self.large.check_prompt_modes(modes)
        if modes and self.certificate.method == "regret":
            raise ConfigError(
                f"method 'regret' cannot test prompt mode {modes[0]!r}, which changes the large model's answers",
                where="certificate.method",
                mend="Use 'net' or 'auto'",
            )

    def applies(self) -> bool:
        """Whether modes beside `none` are searched."""
        return bool(self._modes)

    def plan(
        self, context: Context, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> Prompting:
        """The large model of the stage `outcomes`."""
        return Prompting(
            large=features.sequence.large_with_head(self.large).in_runtime(outcomes.runtime),
            identity=outcomes.identity,
            device=context.cluster.device,
            modes=self.tune.prompt_modes,
            prompts=self.prompts,
            max_loss=self.tune.max_loss,
            certificate=self.certificate,
        )

    @property
    def _modes(self) -> list[PromptMode]:
        return [mode for mode in self.tune.prompt_modes if mode != "none"]

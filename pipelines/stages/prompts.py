"""Stage `prompts`: the large model's answers under prompts of the tuned small side, and the choice of the best mode.

Prompts need the small model's answers, so this stage follows the search. Other processes than the driver read validate,
certify and test rows, a shard at a time. The artefact is a copy of the search's artefact with the policy of the best
mode. A run without prompt modes skips the stage.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from kcm.cascade.policy import Goal, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import TuneConfig, find_policy
from kcm.cascade.table import SPLITS, OutcomeTable
from kcm.certification.certificate import CertificateConfig
from kcm.certification.forecast import forecast_certificate
from kcm.certification.ledger import question_delta
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders.runtime import in_runtime
from kcm.errors import ArtefactError, ConfigError
from kcm.large import LargeConfig, Prompt, PromptMode, Prompts, PromptsConfig, hard_candidates
from kcm.large.adapters.classifier import masked
from kcm.parquet import read_table
from pipelines.batch.asking import PROMPT, ask_shards
from pipelines.batch.mapping import map_items, run_remotely
from pipelines.batch.outcome_table import PartFiles, outcome_part
from pipelines.batch.shards import write_shard
from pipelines.context import Attempt, Context
from pipelines.stages.evaluate import scored_table
from pipelines.stages.outcomes import AskingPlan, next_attempt
from pipelines.stages.stage import Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import Answers, OutcomesArtefact, over_labels
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TunedArtefact, save_prompts, standing


class Prompting(AskingPlan):
    """The large model, the prompt modes, and the choice of the best mode."""

    identity: str
    device: str
    modes: tuple[PromptMode, ...]
    prompts: PromptsConfig
    max_loss: float
    goal: Goal
    certificate: CertificateConfig

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> None:
        """Write a copy of the search, `prompts.json`, and the answers under each mode below `<name>/<mode>/`."""
        shards = [
            PartFiles(task, SPLITS[0], SPLITS[0], shard, {"none": answers})
            for task in range(len(features.names.tasks))
            for shard, answers in zip(features.shards(task), outcomes.shards(task), strict=True)
        ]
        for name in tuned.plan.config.collaborators:
            folder = attempt.folder / name
            shutil.copytree(tuned.below(name), folder)
            prompter = run_remotely(_prompter, self, name, tuned)
            folders = {mode: folder / mode for mode in self.modes if mode != "none"}
            usage: dict[str, Any] = {mode: self._answer(attempt, prompter, name, mode, shards) for mode in folders}
            policy, objectives = run_remotely(_best, self, name, tuned, folders)
            save_prompts(folder, policy, prompter.prompts, objectives, usage)

    def _answer(
        self, attempt: Attempt, prompter: Prompter, name: str, mode: PromptMode, shards: Sequence[PartFiles]
    ) -> dict[str, Any]:
        """Write the answers to all rows under a mode, a file per shard; returns their usage."""
        folder, scratch = (parent / name / mode for parent in (attempt.folder, attempt.scratch))
        folder.mkdir()
        if self.large.fits_on_train:  # its answers are masked without asking
            return {"rows": sum(map_items(partial(write_masked, prompter, mode, folder), shards))}
        write = partial(write_questions, prompter, mode, scratch / "questions")
        questions = {file.name: file for file in map_items(write, shards)}
        return ask_shards(attempt, self.large, prompter.sequence.names, questions, folder, scratch / "answers", mode)


def _prompter(plan: Prompting, name: str, tuned: TunedArtefact) -> Prompter:
    """The prompter of a collaborator; the candidates of the hard mode come from validate rows only."""
    candidate, features = tuned.load(name), tuned.plan.features
    names, rows = features.names, scored_table(candidate, features, tuned.plan.outcomes, ("validate",)).table
    is_kept_N = candidate.policy.keep(rows.score, rows.task)
    candidates = hard_candidates(
        rows.label, is_kept_N & rows.small_correct, len(names.answers), plan.prompts.reliability
    )
    prompts = Prompts(top_k=plan.prompts.top_k, candidates=candidates)
    return Prompter(candidate.collaborator, candidate.policy.temperature, prompts, features.sequence)


def _num_waiting(tuned: TunedArtefact) -> int:
    """The answers under prompts that are missing because of the server."""
    modes = (mode for name in tuned.plan.config.collaborators for mode in tuned.asked(name).values())
    return sum(int(mode.get("waiting", 0)) for mode in modes)


def _best(
    plan: Prompting, name: str, tuned: TunedArtefact, folders: Mapping[PromptMode, Path]
) -> tuple[Policy, dict[str, dict[str, Any]]]:
    """The policy of the mode with the best forecast, and each mode's objectives on validate."""
    tuned_one, features = tuned.load(name), tuned.plan.features
    table = scored_table(tuned_one, features, tuned.plan.outcomes, ("validate",), folders).table
    policies: dict[str, Policy] = {}
    objectives: dict[str, dict[str, Any]] = {}
    first_look = question_delta(plan.certificate.delta, 1)
    for mode in plan.modes:
        mode_rows = table.select(table.prompt == mode)
        rows = ScoredOutcomes.of(mode_rows, mode_rows.score)
        search = partial(
            find_policy, gate=tuned_one.gate, scope=tuned_one.policy.scope, max_loss=plan.max_loss, goal=plan.goal
        )
        searched = search(rows)  # modes are compared without unknown classes, as trials are
        forecast = forecast_certificate(search, rows, features.num_rows("certify"), plan.certificate, first_look)
        policies[mode] = search(rows, novel=tuned_one.novel).policy.model_copy(update={"prompt": mode})
        objectives[mode] = {"calls_saved": searched.calls_saved, "area": searched.area} | forecast.figures
    best = max(policies, key=lambda mode: standing(objectives[mode], plan.goal))
    return policies[best], objectives


class ChoosePrompts(Stage):
    """For each collaborator `<name>/`: what `tune` wrote, with the policy of the best mode; `prompts.json`; answers."""

    stage, version = "prompts", 3
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
                hint="Use 'net' or 'auto'",
            )

    def applies(self) -> bool:
        """Whether modes other than `none` are searched."""
        return bool(self._modes)

    def plan(
        self, context: Context, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> Prompting:
        """The large model of the stage `outcomes`."""
        large = self.large
        plan = Prompting(
            large=large.with_backbone(lambda backbone: in_runtime(backbone, outcomes.runtime)),
            identity=outcomes.identity,
            device=context.cluster.device,
            modes=self.tune.prompt_modes,
            prompts=self.prompts,
            max_loss=self.tune.allowed_loss(self.certificate.epsilon),
            goal=self.tune.goal,
            certificate=self.certificate,
        )
        if not self.large.remote:
            return plan
        reads = {"features": features, "outcomes": outcomes, "tuned": tuned}
        return next_attempt(self, plan, context, features.names, _num_waiting, **reads)

    @property
    def _modes(self) -> list[PromptMode]:
        return [mode for mode in self.tune.prompt_modes if mode != "none"]


@dataclass(frozen=True)
class Prompter:
    """Writes prompts for the large model, from a collaborator's answers to the rows of a sequence."""

    collaborator: Collaborator
    temperature: float
    prompts: Prompts
    sequence: SequenceArtefact

    def tables(self, shard: PartFiles, mode: PromptMode) -> Iterator[tuple[OutcomeTable, list[Prompt]]]:
        """The outcome table of a shard without its train rows, and the prompts of its rows; split by split."""
        names = self.sequence.names
        for split in SPLITS:
            files = replace(shard, split=split, source=split)
            part = outcome_part(self.collaborator, files.read(names, self.sequence.storage), names)
            small_NC = softmax(part.table.small_logits[:, : part.num_labels] / self.temperature, axis=1)
            yield part.table, [self.prompts.write(mode, small_C) for small_C in small_NC]


def write_questions(prompter: Prompter, mode: PromptMode, folder: Path, shard: PartFiles) -> Path:
    """Write the rows of a shard with their prompts to a shard of the same name in `folder`; returns its path.

    Raises ArtefactError if the features belong to other rows.
    """
    sequence, name = prompter.sequence, shard.features.name

    def questions() -> Iterator[pa.Table]:
        for split, (table, prompts) in zip(SPLITS, prompter.tables(shard, mode), strict=True):
            rows = read_table(sequence.readable(name), where=pc.field("split") == split)
            if rows["id"].to_pylist() != table.id.tolist():
                raise ArtefactError("the rows are others", where=f"{sequence.path / name} and {shard.features}")
            yield rows.append_column(
                "prompt", pa.array([PROMPT.dump_json(prompt).decode() for prompt in prompts], pa.string())
            )

    write_shard(prompter.sequence.storage, questions(), folder / name)
    return folder / name


def write_masked(prompter: Prompter, mode: PromptMode, folder: Path, shard: PartFiles) -> int:
    """Write a classifier's answers under hard prompts, its masked own answers, to a shard; returns their number."""
    num_labels, tables = len(prompter.sequence.names.labels), []
    for table, prompts in prompter.tables(shard, mode):
        probabilities_NC = masked(table.large_probabilities[:, :num_labels].astype(np.float32), prompts)
        label_N = np.where(np.isfinite(probabilities_NC).all(axis=1), probabilities_NC.argmax(axis=1), -1)
        distributions_NC = over_labels(probabilities_NC, label_N, num_labels)
        answered = Answers(label_N, distributions_NC, table.large_cost, label_N < 0)
        rows = pa.table({name: pa.array(getattr(table, name), pa.string()) for name in ("id", "split")})
        tables.append(answered.table(rows, mode))
    write_shard(prompter.sequence.storage, tables, folder / shard.features.name)
    return sum(map(len, tables))

"""Stage `prompts`: the large model's answers under prompts of the tuned small side, and the choice of the best mode.

Prompts need the small model's answers, so this stage follows the search; it reads validate, certify and test rows, a
shard at a time, in processes beside the driver. Its artefact is that of the search, with the policy of the best mode. A
run without prompt modes skips it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kcm.cascade.measured import MeasuredRows
from kcm.cascade.policy import Policy
from kcm.cascade.search import TuneConfig, find_policy
from kcm.certify.certificate import CertificateConfig, certified_keep_rate
from kcm.certify.ledger import look_delta
from kcm.errors import ConfigError
from kcm.large import LargeConfig, PromptMode, Prompts, PromptsConfig, hard_candidates
from pipelines.batch.asking import LargeSpec, ask_shards
from pipelines.batch.mapping import map_items, run_remotely
from pipelines.batch.prompting import PromptedShard, Prompter, write_masked, write_questions
from pipelines.batch.scored_parts import scored_parts
from pipelines.context import Attempt, Context
from pipelines.stages.outcomes import AskingPlan, next_attempt
from pipelines.stages.stage import Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcome_table import ScoredTable
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import Tuned, TunedArtefact, save_prompts


class Prompting(AskingPlan):
    """The large model, the prompt modes, and how the best mode is chosen."""

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
        shards = PromptedShard.all_of(features, outcomes)
        for name in tuned.plan.config.collaborators:
            folder, given = attempt.folder / name, (self, name, tuned, features, outcomes)
            shutil.copytree(tuned.below(name), folder)
            prompter = run_remotely(_prompter, *given)
            folders = {mode: folder / mode for mode in self.modes if mode != "none"}
            took: dict[str, Any] = {
                mode: self._answer(prompter, mode, shards, below, attempt.scratch / name / mode, attempt)
                for mode, below in folders.items()
            }
            policy, objectives = run_remotely(_best, *given, folders)
            save_prompts(folder, policy, prompter.prompts, objectives, took)

    def _answer(
        self,
        prompter: Prompter,
        mode: PromptMode,
        shards: Sequence[PromptedShard],
        folder: Path,
        scratch: Path,
        attempt: Attempt,
    ) -> dict[str, Any]:
        """Write the answers to all rows under a mode, a file per shard; gives what they took together."""
        folder.mkdir()
        context, names, storage = attempt.context, prompter.names, attempt.context.store.storage
        if self.large.fits_on_train:  # a mask tells its answers without asking
            return {"rows": sum(map_items(partial(write_masked, prompter, mode, storage, folder), shards))}
        write = partial(write_questions, prompter, mode, storage, scratch / "questions")
        questions = {file.name: file for file in map_items(write, shards)}
        spec = LargeSpec(self.large, names.answers, len(names.labels))
        return ask_shards(context, spec, questions, folder, mode, scratch=scratch / "answers", bar=attempt.bar)


def _prompter(
    plan: Prompting, name: str, tuned: TunedArtefact, features: FeaturesArtefact, outcomes: OutcomesArtefact
) -> Prompter:
    """What writes the prompts; the candidates of the hard mode come from validate rows alone."""
    found, names = tuned.load(name), features.names
    rows = _validate_rows(found, features, outcomes)
    is_kept_N = found.policy.keep(rows.score, rows.task)
    candidates = hard_candidates(
        rows.label, is_kept_N & rows.small_correct, len(names.answers), plan.prompts.reliability
    )
    prompts = Prompts(top_k=plan.prompts.top_k, candidates=candidates)
    return Prompter(found.collaborator, found.policy.temperature, prompts, names)


def _num_waiting(found: TunedArtefact) -> int:
    """The answers under prompts that did not come for a fault of the server."""
    took = (mode for name in found.plan.config.collaborators for mode in found.asked(name).values())
    return sum(int(mode.get("waiting", 0)) for mode in took)


def _best(
    plan: Prompting,
    name: str,
    tuned: TunedArtefact,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    folders: Mapping[PromptMode, Path],
) -> tuple[Policy, dict[str, dict[str, float]]]:
    """The policy of the mode of which a certificate should leave most, and what each mode reaches on validate."""
    tuned_one = tuned.load(name)
    table = _validate_rows(tuned_one, features, outcomes, folders)
    policies: dict[str, Policy] = {}
    objectives: dict[str, dict[str, float]] = {}
    for mode in plan.modes:
        rows = table.scored(table.prompt == mode)
        search = partial(find_policy, rows, tuned_one.gate, tuned_one.policy.scope, plan.max_loss)
        found = search()  # modes are compared without unknown classes, as trials are
        keep_rate = certified_keep_rate(found.policy, rows, plan.certificate, look_delta(plan.certificate.delta, 1))
        policies[mode] = search(tuned_one.novel).policy.model_copy(update={"prompt": mode})
        objectives[mode] = {"promised": keep_rate, "calls_saved": found.calls_saved, "area": found.area}
    best = max(policies, key=lambda mode: tuple(objectives[mode].values()))
    return policies[best], objectives


def _validate_rows(
    found: Tuned,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    prompted: Mapping[PromptMode, Path] | None = None,
) -> MeasuredRows:
    """The validate rows under prompt `none` and all of `prompted`, as the search scored them."""
    parts = scored_parts(
        found.collaborator, found.gate, features, outcomes, ("validate",), prompted, left_out=found.left_out
    )
    return ScoredTable.of(parts, found.gate, found.validate_scores, found.policy).table


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
                hint="Use 'net' or 'auto'",
            )

    def applies(self) -> bool:
        """Whether modes beside `none` are searched."""
        return bool(self._modes)

    def plan(
        self, context: Context, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> Prompting:
        """The large model of the stage `outcomes`."""
        plan = Prompting(
            large=features.sequence.large_with_head(self.large).in_runtime(outcomes.runtime),
            identity=outcomes.identity,
            device=context.cluster.device,
            modes=self.tune.prompt_modes,
            prompts=self.prompts,
            max_loss=self.tune.allowed_loss(self.certificate.epsilon),
            certificate=self.certificate,
        )
        if not self.large.remote:
            return plan
        reads = {"features": features, "outcomes": outcomes, "tuned": tuned}
        return next_attempt(self, plan, context, features.names, _num_waiting, **reads)

    @property
    def _modes(self) -> list[PromptMode]:
        return [mode for mode in self.tune.prompt_modes if mode != "none"]

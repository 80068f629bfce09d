"""Stage `prompts`: what the large model says under prompts that the tuned small side writes, and the best of them.

Prompts need the small model's answers, so this stage comes after the search, for validate, certify and test rows. It
leaves what the search left, with the policy of the best mode; a run without such modes does without it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from kcm.cascade.policy import Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.cascade.table import SPLITS, OutcomeTable
from kcm.certify.certificate import certified_keep_rate
from kcm.certify.ledger import look_delta
from kcm.errors import ConfigError
from kcm.inputs.content import Content, contents
from kcm.large import (
    LargeAnswer,
    Prompt,
    PromptMode,
    Prompts,
    hard_candidates,
)
from kcm.large.adapters.classifier import masked, read_off
from kcm.large.base import Cost
from pipelines.batch.asking import Asked, ask, written_prompt
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.stages.features import task_file
from pipelines.stages.outcomes import IDENTITY, asking_section
from pipelines.stages.tasks import load_sequence
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.outcome_file import Outcomes
from pipelines.store.outcome_table import outcome_table, with_prompts
from pipelines.training.tuned import POLICY, PROMPTS, Tuned
from pipelines.training.worker import WalkPlan

VERSION = 1


def prompt_modes(config: RunConfig) -> tuple[PromptMode, ...]:
    """The modes beside `none` that are searched.

    Raises ConfigError where the large model cannot follow one, or the certificate could not test it.
    """
    modes: tuple[PromptMode, ...] = tuple(mode for mode in config.tune.prompt_modes if mode != "none")
    config.large.check_prompt_modes(modes)
    if modes and config.certificate.method == "regret":
        raise ConfigError(
            f"method 'regret' cannot test prompt mode {modes[0]!r}, which changes the large model's answers",
            where="certificate.method",
            mend="Use 'net' or 'auto'",
        )
    return modes


def prompts(
    context: Context,
    plan: WalkPlan,
    answer_names: tuple[str, ...],
    inputs: tuple[Artefact, Artefact, Artefact, Artefact],
) -> Artefact:
    """For each collaborator `<name>/`: what `tune` wrote, with the policy of the best mode; `prompts.json`; answers.

    The answers under a mode lie below `<name>/<mode>/`, an outcomes file per task. `inputs` are the artefacts of tasks,
    features, outcomes and tune.
    """
    sequence, encoded, answered, tuned = inputs
    config, modes = context.config, prompt_modes(context.config)
    identity = json.loads((answered.folder / IDENTITY).read_text(encoding="utf-8"))["identity"]
    section = asking_section(context, config.large, identity) | {
        "modes": config.tune.prompt_modes,
        "prompts": config.prompts.model_dump(mode="json"),
        "max_loss": config.tune.max_loss,
        "certificate": config.certificate.model_dump(mode="json"),
    }

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        shown = _contents(sequence)
        for name in plan.collaborators:
            shutil.copytree(tuned.folder / name, folder / name)
            tried = _Prompted(context, plan, answer_names, Tuned.load(tuned.folder / name, plan, name), shown)
            table = tried.table(encoded.folder, answered.folder)
            frozen = tried.freeze(table)
            took = {
                mode: tried.answer(table, mode, frozen, folder / name / mode, scratch / name / mode, bar)
                for mode in modes
            }
            everything = with_prompts(table, {mode: folder / name / mode for mode in modes}, len(plan.tasks), SPLITS)
            policy, objectives = tried.best(everything)
            (folder / name / POLICY).write_text(policy.model_dump_json(indent=2), encoding="utf-8")
            found = {"prompts": frozen.model_dump(mode="json"), "objectives": objectives, "took": took}
            write_json(folder / name / PROMPTS, found)

    return context.build(Recipe("prompts", VERSION, section, (encoded, answered, tuned)), write)


@dataclass(frozen=True)
class _Prompted:
    """One collaborator whose prompts are tried."""

    context: Context
    plan: WalkPlan
    answer_names: tuple[str, ...]
    found: Tuned
    shown: Mapping[str, Content]

    def table(self, encoded: Path, answered: Path) -> OutcomeTable:
        """The outcome table under prompt `none`, its rows task by task and split by split."""
        names = [task.name for task in self.plan.tasks]
        return outcome_table(self.found.collaborator, encoded, answered, names, self.answer_names, SPLITS)[0]

    def freeze(self, table: OutcomeTable) -> Prompts:
        """What writes the prompts; the candidates of the hard mode come from validate rows alone."""
        config, rows = self.context.config.prompts, table.where(split="validate")
        kept_N = self.found.policy.keep(self.found.validate_scores, rows.task)
        candidates = hard_candidates(
            rows.label, kept_N & rows.small_correct, len(self.answer_names), config.reliability
        )
        return Prompts(top_k=config.top_k, candidates=candidates)

    def answer(
        self, table: OutcomeTable, mode: PromptMode, frozen: Prompts, folder: Path, scratch: Path, bar: Bar
    ) -> dict[str, Any]:
        """Write the answers to all rows under a mode, an outcomes file per task; gives what they took together."""
        large = self.context.config.large
        num_labels = self.plan.num_labels
        small_NC = softmax(table.small_logits[:, :num_labels] / self.found.policy.temperature, axis=1)
        prompts = [frozen.write(mode, small_C) for small_C in small_NC]
        took: dict[str, Any] = {"rows": len(table)}
        if large.fits_on_train:  # a mask tells its answers without asking
            answers = Outcomes.of(_masked(table, prompts, num_labels), num_labels)
        else:
            columns = {
                "id": table.id.tolist(),
                "text": [self.shown[row_id].text for row_id in table.id],
                "image": pa.array([self.shown[row_id].image for row_id in table.id], pa.large_binary()),
                "prompt": [written_prompt(prompt) for prompt in prompts],
            }
            asked = Asked(large, tuple(self.answer_names), num_labels)
            answers, took = ask(self.context, asked, pa.table(columns), scratch=scratch, bar=bar)
        folder.mkdir()
        start = 0
        for number, task in enumerate(self.plan.tasks):
            mine = table.where(task=task.name)
            rows = pa.table({"id": mine.id.tolist(), "split": mine.split.tolist()})
            answers.rows(slice(start, start + len(mine))).write(task_file(folder, number), rows, mode)
            start += len(mine)
        return took

    def best(self, table: OutcomeTable) -> tuple[Policy, dict[str, dict[str, float]]]:
        """The policy of the mode of which a certificate should leave most, and what each mode reaches on validate."""
        config, gate = self.context.config, self.found.gate
        policies: dict[str, Policy] = {}
        objectives: dict[str, dict[str, float]] = {}
        for mode in config.tune.prompt_modes:
            part = table.where(split="validate", prompt=mode)
            rows = ScoredOutcomes.of(part, self.found.validate_scores)
            found = find_policy(rows, gate, self.found.policy.scope, config.tune.max_loss)
            first_look = look_delta(config.certificate.delta, 1)
            keep_rate = certified_keep_rate(found.policy, rows, config.certificate, first_look)
            policies[mode] = found.policy.model_copy(update={"prompt": mode})
            objectives[mode] = {"promised": keep_rate, "calls_saved": found.calls_saved, "area": found.area}
        best = max(policies, key=lambda mode: tuple(objectives[mode].values()))
        return policies[best], objectives


def _masked(table: OutcomeTable, prompts: Sequence[Prompt], num_labels: int) -> list[LargeAnswer]:
    """What a classifier says under prompts that take labels away: its own answers, masked."""
    probabilities_NC = masked(table.large_probabilities[:, :num_labels].astype(np.float32), prompts)
    answers = read_off(probabilities_NC, Cost())
    return [replace(answer, cost=Cost(seconds)) for answer, seconds in zip(answers, table.large_cost, strict=True)]


def _contents(sequence: Artefact) -> dict[str, Content]:
    """What is shown of every row, by its id."""
    loaded = load_sequence(sequence)
    tables = [loaded.rows(number).select(["id", "text", "image"]) for number in range(len(loaded.tasks))]
    rows = pa.concat_tables(tables).to_pydict()
    return dict(zip(rows["id"], contents(rows["text"], rows["image"]), strict=True))

"""One trial of the search: train or load a collaborator, then evaluate its outcome table on validate."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from kcm.cascade.gate import GateName
from kcm.cascade.novelty import Novelty
from kcm.cascade.policy import Goal
from kcm.cascade.reference import Reference
from kcm.cascade.search import Scope, find_policy
from kcm.certification.certificate import CertificateConfig
from kcm.certification.forecast import forecast_certificate
from kcm.certification.ledger import question_delta
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Learner
from kcm.learners.ranks import on_device
from kcm.local_files import drafted
from pipelines.batch.outcome_table import LeftOut, PartRows, outcome_part
from pipelines.cluster.config import device_here
from pipelines.store.storage import Storage
from pipelines.training.artefacts import TrainedArtefact, Tuned
from pipelines.training.fitting import MAX_FITTED_ROWS, deciding_rows, fitted_on, left_out_of
from pipelines.training.worker import TrainerPlan, load_state


@dataclass(frozen=True)
class Choice:
    """A point of the search space: training settings of the collaborator, and its gate.

    `learning_rate` is the peak rate of the optimiser that the run has chosen.
    """

    learning_rate: float
    large_weight: float
    judge_weight: float
    gate: GateName
    scope: Scope

    @property
    def training(self) -> dict[str, float]:
        """The values that training depends on; trials with equal ones share a trained collaborator."""
        return training_values(self.learning_rate, self.large_weight, self.judge_weight)


@dataclass(frozen=True)
class Point:
    """A trial that was drawn: the collaborator, the trial's number among that collaborator's, and the choice."""

    collaborator: str
    number: int
    choice: Choice


def training_values(learning_rate: float, large_weight: float, judge_weight: float) -> dict[str, float]:
    """Values of a training by name; without a teacher nothing is anchored, see `distillation_loss`."""
    anchor = judge_weight if large_weight else 0.0
    return {"learning_rate": learning_rate, "large_weight": large_weight, "judge_weight": anchor}


@dataclass(frozen=True, eq=False)
class _Trained:
    """A trained collaborator with its learner and its answers to left-out train rows; the same for all gates."""

    collaborator: Collaborator
    learner: Learner
    state: dict[str, Any]
    left_out: LeftOut | None
    device: str  # of the learner
    _without: list[tuple[Tensor, Tensor] | None] = field(default_factory=list)

    def without_own_class(self, *rows: Tensor) -> tuple[Tensor, Tensor] | None:
        """The learner's logits for rows as if their class was never learned; the rows are the same for all gates."""
        if not self._without:
            self._without.append(on_device(self.learner.without_own_class(*on_device(rows, self.device)), "cpu"))
        return self._without[0]


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of all collaborators share."""

    plan: TrainerPlan
    trained: TrainedArtefact  # for the configured hyper-parameters
    scratch: Storage  # states that trials have trained
    max_loss: float  # that a searched policy may lose on the rows that choose
    certificate: CertificateConfig
    novel_share: float = 0.0  # share of the traffic that the search assumes to be of unknown classes
    goal: Goal = "calls"
    gpus: float = 0.0  # of a trial

    def state(self, name: str, choice: Choice) -> dict[str, Any]:
        """The collaborator's finished trainer, trained once; the train stage's trainer for the stage's values."""
        if choice.training == self._configured(name):
            return self.trained.state(name)
        digest = hashlib.sha256(json.dumps(choice.training, sort_keys=True).encode()).hexdigest()[:12]
        path = self.scratch.root / f"{name}-{digest}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            try:
                self.scratch.fetch(path)
            except FileNotFoundError:
                draft = path.with_suffix(f".{os.getpid()}")
                torch.save(self._train(name, choice), draft)
                draft.replace(path)
                self.scratch.keep(path)
        return load_state(path)

    def figures_of(self, point: Point) -> dict[str, float | None]:
        """The objectives that a point reaches; those of a trial that an interrupted search has finished are read."""
        path = self.scratch.root / f"{point.collaborator}-{point.number}.json"
        try:
            self.scratch.fetch(path)
            reached: dict[str, float | None] = json.loads(path.read_text())
        except FileNotFoundError:
            reached = self.evaluate(point.collaborator, point.choice).figures
            with drafted(path) as draft:
                draft.write_text(json.dumps(reached))
            self.scratch.keep(path)
        return reached

    def evaluate(self, name: str, choice: Choice) -> Tuned:
        """The collaborator's best policy on validate rows, or without them on left-out train rows."""
        trained = self._trained(name, choice)
        state, left_out, features = trained.state, trained.left_out, self.plan.features
        gate, rows, novel = fitted_on(
            lambda: (outcome_part(trained.collaborator, rows, features.names, left_out) for rows in self._rows()),
            features.num_rows("validate") + (0 if left_out is None else len(left_out.ids)),
            choice.gate,
            num_labels=self.plan.num_labels,  # what serving has: none-of-these is no answer of the small side
            reference=Reference.of(trained.collaborator, state["learner"]),
            seed=self.plan.config.seed,
            without_own_class=trained.without_own_class,
            novelty=Novelty.of(state["learner"]),
            novel_share=self.novel_share,
        )
        search = partial(find_policy, gate=gate, scope=choice.scope, max_loss=self.max_loss, goal=self.goal)
        best, first_look = search(rows), question_delta(self.certificate.delta, 1)
        forecast = forecast_certificate(search, rows, features.num_rows("certify"), self.certificate, first_look)
        policy = best.policy
        if novel and novel.share:  # compared without unknown classes: not every learner tells what it keeps of them
            policy = search(rows, novel=novel).policy
        return Tuned(
            trained.collaborator,
            gate,
            policy,
            state,
            validate_scores=rows.score,
            choice=asdict(choice),
            reached={"area": best.area, "calls_saved": best.calls_saved} | forecast.figures,
            left_out=left_out,
            novel=novel,
        )

    def _rows(self) -> Iterable[PartRows]:
        """The rows that choose. Each process reads them once; more than a gate is fitted on are read in every pass."""
        if self.plan.features.num_deciding_undrawn > MAX_FITTED_ROWS:
            return deciding_rows(self.plan.features, self.plan.outcomes)
        return self._held

    @cached_property
    def _held(self) -> list[PartRows]:
        return list(deciding_rows(self.plan.features, self.plan.outcomes))

    def _trained(self, name: str, choice: Choice) -> _Trained:
        """The collaborator as it was trained for a choice; the last result stays in memory."""
        key = name, tuple(choice.training.values())
        if key not in self._last:
            state = self.state(name, choice)
            collaborator, learner = self.plan.collaborator(name, state), self.plan.learner(name)
            device = "cpu" if learner.on_cpu else device_here(self.gpus)
            learner.load_state_dict(on_device(state["learner"], device))
            left_out = None
            if self.plan.features.tasks_without_validate:
                there = copy.deepcopy(collaborator).to(device)
                left_out = left_out_of(there, learner, self._distill(choice), self._rows())
            self._last.clear()
            self._last[key] = _Trained(collaborator, learner, state, left_out, device)
        return self._last[key]

    @cached_property
    def _last(self) -> dict[tuple[str, tuple[float, ...]], _Trained]:
        return {}

    def _distill(self, choice: Choice) -> DistillConfig:
        weights = {"large_weight": choice.large_weight, "judge_weight": choice.judge_weight}
        return self.plan.config.distill.model_copy(update=weights)

    def _configured(self, name: str) -> dict[str, float]:
        train, distill = self.plan.config.settings_of(name)
        return training_values(train.peak_rate, distill.large_weight, distill.judge_weight)

    def _train(self, name: str, choice: Choice) -> dict[str, Any]:
        configured = self.plan.config
        changes = {
            "train": configured.train.with_rate(choice.learning_rate),
            "distill": self._distill(choice),
            "collaborators": (name,),
            "chosen": {},
        }
        plan = replace(self.plan, config=configured.model_copy(update=changes))
        trainer = plan.trainer(name, device=device_here(self.gpus))
        trainer.run()
        return trainer.state_dict()

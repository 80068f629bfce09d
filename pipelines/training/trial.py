"""One trial of the search: train or recall a collaborator, then replay its outcome table on validate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from kcm.cascade.gate import Gate, GateName, fit_gate
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import Found, Scope, find_policy
from kcm.certify.certificate import CertificateConfig, certified_keep_rate
from kcm.certify.ledger import look_delta
from kcm.collaborator.collaborator import Collaborator
from kcm.metrics.calibration import fit_temperature
from pipelines.cluster import ClusterConfig
from pipelines.progress import Reporter
from pipelines.stages.train import run_workers
from pipelines.store.outcome_table import outcome_table
from pipelines.training.worker import WalkPlan, WorkerPlan


@dataclass(frozen=True)
class Choice:
    """A point of the search space: how the collaborator is trained, and how its answers are gated."""

    learning_rate: float
    large_weight: float
    judge_weight: float
    gate: GateName
    scope: Scope
    deferral_weight: float

    @property
    def training(self) -> dict[str, float]:
        """The part that training depends on; trials that share it share a trained collaborator."""
        return {name: getattr(self, name) for name in ("learning_rate", "large_weight", "judge_weight")}


@dataclass(frozen=True)
class Evaluated:
    """What a choice reaches on validate: its policy, what a certificate is expected to leave of it, gate and scores."""

    found: Found
    promised: float
    gate: Gate
    scores: np.ndarray  # [N], out-of-fold where the gate was fitted on the same rows

    def objectives(self) -> dict[str, float]:
        """What trials are compared by."""
        return {"area": self.found.area, "calls_saved": self.found.calls_saved, "promised": self.promised}


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of one collaborator share."""

    collaborator: str
    plan: WalkPlan
    answer_names: tuple[str, ...]
    features: Path
    outcomes: Path
    trained: Path  # the state that the train stage gave for the configured hyper-parameters
    scratch: Path  # states that trials have trained
    max_loss: float
    certificate: CertificateConfig
    workers: ClusterConfig | None = None  # where trials train; None: in their own process

    def state(self, choice: Choice) -> dict[str, Any]:
        """The finished walk of a choice, trained at most once; the train stage did so for its own values."""
        if choice.training == self._configured():
            return _load(self.trained)
        digest = hashlib.sha256(json.dumps(choice.training, sort_keys=True).encode()).hexdigest()[:12]
        path = self.scratch / f"{self.collaborator}-{digest}.pt"
        self.scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                draft = path.with_suffix(f".{os.getpid()}")
                torch.save(self._train(choice, digest), draft)
                draft.replace(path)
        return _load(path)

    def evaluate(self, choice: Choice) -> Evaluated:
        """The best policy of a choice on validate."""
        collaborator = self.load(self.state(choice))
        table, features_ND, _ = outcome_table(
            collaborator, self.features, self.outcomes, self._task_names(), self.answer_names, ("validate",)
        )
        table = table.where(prompt="none")
        judge_NC = table.judge_logits[:, : self.plan.num_labels]  # what serving has: none-of-these is no answer of it
        fitted = fit_gate(
            choice.gate,
            fit_temperature(table.judge_logits, table.label),
            table,
            features_ND,
            judge_NC,
            deferral_weight=choice.deferral_weight,
            seed=self.plan.seed,
        )
        rows = ScoredOutcomes.of(table, fitted.scores)
        found = find_policy(rows, fitted.gate, choice.scope, self.max_loss)
        first_look = look_delta(self.certificate.delta, 1)
        keep_rate = certified_keep_rate(found.policy, rows, self.certificate, first_look)
        return Evaluated(found, keep_rate, fitted.gate, fitted.scores)

    def load(self, state: dict[str, Any]) -> Collaborator:
        """The collaborator of a finished walk's state."""
        return load_collaborator(self.plan, self.collaborator, state)

    def _configured(self) -> dict[str, float]:
        distill = self.plan.distill
        return {
            "learning_rate": self.plan.train.learning_rate,
            "large_weight": distill.large_weight,
            "judge_weight": distill.judge_weight,
        }

    def _train(self, choice: Choice, digest: str) -> dict[str, Any]:
        weights = {"large_weight": choice.large_weight, "judge_weight": choice.judge_weight}
        plan = replace(
            self.plan,
            train=self.plan.train.model_copy(update={"learning_rate": choice.learning_rate}),
            distill=self.plan.distill.model_copy(update=weights),
        )
        if self.workers:
            return self._train_on(self.workers, replace(plan, collaborators=(self.collaborator,)), digest)
        walk = plan.walk(self.collaborator)
        walk.run()
        return walk.state_dict()

    def _train_on(self, cluster: ClusterConfig, plan: WalkPlan, digest: str) -> dict[str, Any]:
        """As the stage `train` does it; an interrupted trial goes on from its checkpoint.

        Trials are never stopped early: Ray would leave the workers of a stopped one behind, with what they reserve.
        """
        storage = self.scratch / f"{self.collaborator}-{digest}"
        with Reporter().bar("trial", "steps") as bar:
            state = run_workers(WorkerPlan(plan, digest, storage, cluster.checkpoint_every), cluster, bar, print)
        shutil.rmtree(storage, ignore_errors=True)
        return state[self.collaborator]

    def _task_names(self) -> list[str]:
        return [task.name for task in self.plan.tasks]


def load_collaborator(plan: WalkPlan, name: str, state: dict[str, Any]) -> Collaborator:
    """The collaborator `name` of a plan, with the weights of a walk's state."""
    collaborator = plan.collaborator(name)
    collaborator.load_state_dict(state["collaborator"])
    return collaborator.eval()


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state

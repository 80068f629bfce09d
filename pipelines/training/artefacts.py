"""Artefacts of training and search: trained collaborators, and the best of each kind with gate and policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from kcm.cascade.gate import Gate, restored_gate
from kcm.cascade.novelty import FAR_SHARE, NovelRows, Reach
from kcm.cascade.policy import Goal, Policy
from kcm.certification.forecast import CertificateForecast
from kcm.collaborator.collaborator import Collaborator
from kcm.config import parse_config
from pipelines.batch.outcome_table import LeftOut
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.worker import TrainerConfig, TrainerPlan, load_state

TRIALS, FOUND = "trials.json", "found.json"
OBJECTIVES = ("area", "calls_saved")  # of a search
REACHED = (*OBJECTIVES, "forecast", "forecast_low", "forecast_high", "forecast_accuracy")
RANKINGS: Mapping[Goal, tuple[str, ...]] = {  # objectives by weight
    "calls": ("forecast", "calls_saved", "area"),
    "accuracy": ("forecast_accuracy", "forecast", "area"),
}
_REHEARSED: Mapping[Goal, Literal["keep_rates", "accuracies"]] = {"calls": "keep_rates", "accuracy": "accuracies"}
_GATE, _STATE, _SCORES, _LEFT_OUT = "gate.safetensors", "state.pt", "validate_scores.npy", "left_out.npz"
_NOVEL = "novel.npz"


class TrainedArtefact(Artefact):
    """The state of a finished trainer for each collaborator."""

    kind = "trained"

    @property
    def config(self) -> TrainerConfig:
        """How the collaborators were trained."""
        return parse_config(TrainerConfig, self.manifest["section"], where=self.where)

    @property
    def plan(self) -> TrainerPlan:
        """How the collaborators were trained, and on what."""
        features, outcomes = self.source(FeaturesArtefact, "features"), self.source(OutcomesArtefact, "outcomes")
        return TrainerPlan(self.config, features, outcomes)

    @staticmethod
    def write(folder: Path, states: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
        """Fill the folder with the states of these collaborators' trainers."""
        for name in names:
            torch.save(states[name], folder / f"{name}.pt")

    def state(self, name: str) -> dict[str, Any]:
        """The state of a collaborator's trainer."""
        return load_state(self.file(f"{name}.pt"))


@dataclass(frozen=True)
class Tuned:
    """The best trial of one collaborator."""

    collaborator: Collaborator
    gate: Gate
    policy: Policy
    state: dict[str, Any]
    validate_scores: np.ndarray  # out-of-fold if the gate was fitted on the same rows
    choice: dict[str, Any]  # its point of the search space, by dimension
    reached: dict[str, Any]  # the objectives of the search, and the draws of the forecast
    left_out: LeftOut | None = None  # of train rows that choose in place of validate rows
    novel: NovelRows | None = None  # rows as if their class had never been learned, if the learner can compute this

    @property
    def figures(self) -> dict[str, float | None]:
        """What its trial has reached, by objective."""
        return {objective: self.reached[objective] for objective in REACHED}

    @property
    def forecast(self) -> CertificateForecast:
        """What a certificate will leave to the small side."""
        return CertificateForecast.of(self.reached)

    def save(self, folder: Path) -> None:
        """Write what the search found to a new folder."""
        folder.mkdir(parents=True)
        write_json(folder / FOUND, {"choice": self.choice} | self.reached)
        np.save(folder / _SCORES, self.validate_scores)
        if self.left_out is not None:
            self.left_out.save(folder / _LEFT_OUT)
        if self.novel is not None:
            columns = {name: column for name, column in vars(self.novel).items() if column is not None}
            np.savez(folder / _NOVEL, **columns)
        torch.save(self.state, folder / _STATE)
        self.policy.save(folder)
        if tensors := self.gate.tensors:
            save_file(tensors, folder / _GATE)

    @classmethod
    def load(cls, folder: Path, plan: TrainerPlan, name: str) -> Tuned:
        """Read what `save` wrote."""
        state, policy = load_state(folder / _STATE), Policy.load(folder)
        tensors = load_file(folder / _GATE) if (folder / _GATE).exists() else {}
        reached = json.loads((folder / FOUND).read_text("utf-8"))
        return cls(
            collaborator=plan.collaborator(name, state),
            gate=restored_gate(policy.gate, policy.temperature, tensors, Reach.of(state["learner"], policy.farthest)),
            policy=policy,
            state=state,
            validate_scores=np.load(folder / _SCORES),
            choice=reached.pop("choice"),
            reached=reached,
            left_out=LeftOut.load(folder / _LEFT_OUT) if (folder / _LEFT_OUT).exists() else None,
            novel=_novel(folder / _NOVEL) if (folder / _NOVEL).exists() else None,
        )


def _novel(path: Path) -> NovelRows:
    with np.load(path) as stored:
        return NovelRows(stored["scores"], stored.get("distances"), float(stored["share"]))


class TunedArtefact(Artefact):
    """The best trial of each collaborator."""

    kind = "tuned"

    @cached_property
    def plan(self) -> TrainerPlan:
        """How the collaborators were trained, and on what."""
        return self.source(TrainedArtefact, "train").plan

    def load(self, name: str) -> Tuned:
        """What was found for a collaborator."""
        return Tuned.load(self.below(name), self.plan, name)

    def state_file(self, name: str) -> Path:
        """Where the state of a collaborator's trainer lies."""
        return self.file(f"{name}/{_STATE}")

    def choice(self, name: str) -> dict[str, Any]:
        """The point of the search space that a collaborator's best trial has, by dimension."""
        return self.json(f"{name}/{FOUND}")["choice"]

    def objectives(self, name: str) -> dict[str, Any]:
        """What a collaborator reaches on the rows that choose."""
        found: dict[str, Any] = self.json(f"{name}/{FOUND}")
        return {objective: figure for objective, figure in found.items() if objective != "choice"}

    @property
    def goal(self) -> Goal:
        """What all policies were chosen by."""
        return Policy.load(self.below(self.plan.config.collaborators[0])).goal

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All trials of the search."""
        return self.json(TRIALS)


def standing(reached: Mapping[str, Any], goal: Goal = "calls") -> tuple[float, ...]:
    """The objectives that rank trials and collaborators. They use no certify row, so ranking costs no delta."""
    return tuple(reached[objective] for objective in RANKINGS[goal])


def is_better(one: Mapping[str, Any], other: Mapping[str, Any], goal: Goal) -> bool:
    """Whether the goal's forecast for `one` exceeds the forecast for `other` by a standard error and `FAR_SHARE`.

    Both were rehearsed on the same draws of the same rows, so the difference is paired; see `CertificateForecast.lead`.
    """
    lead, error = CertificateForecast.of(one).lead(CertificateForecast.of(other), _REHEARSED[goal])
    return lead > max(error, FAR_SHARE)

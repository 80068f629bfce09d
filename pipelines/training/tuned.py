"""What the search left: one collaborator with its gate and policy, and the prompts of the policy where it has some."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from kcm.cascade.deferral import DeferralHead
from kcm.cascade.gate import Gate
from kcm.cascade.policy import Policy
from kcm.collaborator.collaborator import Collaborator
from kcm.large import PromptMode, Prompts
from pipelines.training.trial import load_collaborator
from pipelines.training.worker import WalkPlan

POLICY, PROMPTS = "policy.json", "prompts.json"


@dataclass(frozen=True)
class Tuned:
    """What the search found for one collaborator."""

    collaborator: Collaborator
    gate: Gate
    policy: Policy
    state: dict[str, Any]
    validate_scores: np.ndarray  # out-of-fold where the gate was fitted on validate
    prompts: Prompts | None = None
    objectives: dict[PromptMode, dict[str, float]] = field(
        default_factory=dict
    )  # by prompt mode, where modes were searched

    @classmethod
    def load(cls, folder: Path, plan: WalkPlan, name: str) -> Tuned:
        """Read what the stage `tune` or `prompts` wrote."""
        state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
        policy = Policy.model_validate_json((folder / POLICY).read_text(encoding="utf-8"))
        deferral = None
        if (folder / "gate.safetensors").exists():
            deferral = DeferralHead(plan.in_features, plan.num_labels)
            deferral.load_state_dict(load_file(folder / "gate.safetensors"))
        searched = _json(folder / PROMPTS) if (folder / PROMPTS).exists() else None
        return cls(
            collaborator=load_collaborator(plan, name, state),
            gate=Gate(policy.gate, policy.temperature, deferral, policy.deferral_weight),
            policy=policy,
            state=state,
            validate_scores=np.load(folder / "validate_scores.npy"),
            prompts=Prompts.model_validate(searched["prompts"]) if searched else None,
            objectives=searched["objectives"] if searched else {},
        )


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value

"""A labelled table's small model as a bundle, for the next file: trained on all bought answers, and not certified.

Its threshold keeps the share of the table's texts that the job kept. Shapes: U texts, B of them bought, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import SIZE, UnitDigests
from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.encoders import EncoderConfig
from kcm.inputs.content import Content
from kcm.labelling.rounds import Labelled
from kcm.large.adapters.openai import OpenAiConfig
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units as RowUnits
from kcm.tasks.units import unit_digest

NETWORK = NetworkConfig(hidden=(), basis="quadratic", mixing=2048, shared=True)  # a control of `kcm run`
TASK = "table"
_AT_ONCE = 8192  # texts whose expanded features are in memory together


def bundle_of(
    texts: Sequence[str],
    features_UD: NDArray[np.float32],
    found: Labelled,
    labels: tuple[str, ...],
    encoder: EncoderConfig,
    server: OpenAiConfig,
    assets_dir: Path,
    seed: int,
) -> Bundle:
    """A bundle of a finished job: `features_UD` are the encoder's, `server` answered. At least two texts are bought."""
    bought = np.flatnonzero(found.bought_U)
    label_B = torch.from_numpy(found.answer_U[bought])
    no_large = torch.full((len(bought), 1), torch.nan)
    rows = Batch(torch.from_numpy(features_UD[bought]), label_B, no_large, torch.ones(len(bought)))
    config = AnalyticConfig(name="analytic")
    learner = Analytic(config)
    collaborator = Collaborator(features_UD.shape[1], len(labels), NETWORK, "quadratic", seed)
    distill = DistillConfig()
    learner.absorb(collaborator, rows, distill, Ranks())
    learner.solve(collaborator, Ranks())
    collaborator.eval().requires_grad_(False)
    chunks = torch.split(torch.arange(len(rows)), _AT_ONCE)
    parts = (rows.take(places, rows.weights[places]) for places in chunks)
    left_out_BC = np.concatenate(
        [learner.left_out(collaborator, part, RowUnits(None, len(part)), distill)[0].numpy() for part in parts]
    )
    gate = Gate("confidence", fit_temperature(left_out_BC, label_B.numpy()))
    score_U = np.concatenate(
        [
            gate.score(part_nD, logits(collaborator, part_nD)[0])
            for part_nD in np.array_split(features_UD, range(_AT_ONCE, len(features_UD), _AT_ONCE))
        ]
    )
    score_U[bought] = gate.score(rows.features.numpy(), left_out_BC)  # its own answer would make a text look too easy
    num_kept = int((~found.bought_U & ~found.failed_U).sum())
    trained = UnitDigests.of(unit_digest(Content(texts[unit]))[:SIZE].hex() for unit in bought.tolist())
    return Bundle(
        collaborator=collaborator,
        seed=seed,
        label_names=labels,
        task_names=(TASK,),
        encoder=encoder.of_dim(features_UD.shape[1]),
        encoder_identity=encoder.identity(assets_dir),
        large=server,
        large_identity=server.identity(labels, assets_dir),
        policy=Policy(gate="confidence", temperature=gate.temperature, decision=decision_keeping(score_U, num_kept)),
        learner=config,
        metrics={"table": {"texts": len(texts), "bought": len(bought), "kept": num_kept}},
        learner_state=learner.state_dict(),
        trained_units=trained,
    )


def decision_keeping(score_U: NDArray[np.float64], num_kept: int) -> Decision:
    """The threshold above which `num_kept` of the scores lie; fewer if scores are equal."""
    if num_kept <= 0:
        return ESCALATE_ALL
    if num_kept >= len(score_U):
        return KEEP_ALL
    return Decision.of(float(np.sort(score_U)[len(score_U) - num_kept - 1]))

"""A labelled table's bundle for the next file.

The bundle is trained on all bought answers, and not certified; its threshold keeps the share of the table's texts that
the job kept. Shapes: U texts, B of them bought, D features, C labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.novelty import Novelty, Reach
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import with_dim
from kcm.labelling.certificate import Labelled
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units as RowUnits

NETWORK = NetworkConfig(hidden=(), basis="quadratic", mixing=2048, shared=True)
TASK = "table"
_AT_ONCE = 8192  # texts whose expanded features are in memory together


def bundle_of(
    features_UD: NDArray[np.float32],
    labelled: Labelled,
    labels: tuple[str, ...],
    encoder: EncoderConfig,
    server: OpenAiConfig,
    assets_dir: Path,
    seed: int,
) -> Bundle:
    """A bundle of a finished job: `features_UD` are the encoder's, `server` answered. At least two texts are bought."""
    bought = np.flatnonzero(labelled.bought_U)
    feature_BD, label_B = features_UD[bought], labelled.answer_U[bought]
    learner, collaborator, left_out_BC = _fitted(feature_BD, label_B, len(labels), seed)
    state = learner.state_dict()
    novelty = Novelty.of(state)
    reach = Reach.fit(novelty, left_out_BC.astype(np.float64)) if novelty else None
    gate = Gate("confidence", fit_temperature(left_out_BC, label_B), reach=reach)
    score_U = _scores(collaborator, gate, features_UD)
    score_U[bought] = gate.score(feature_BD, left_out_BC)  # its own answer would make a text look too easy
    num_kept = int((~labelled.bought_U & ~labelled.failed_U).sum())
    decision = decision_keeping(score_U, num_kept)
    return Bundle(
        collaborator=collaborator,
        seed=seed,
        label_names=labels,
        task_names=(TASK,),
        encoder=with_dim(encoder, collaborator.in_features),
        encoder_identity=encoder.identity(assets_dir),
        large=server,
        large_identity=openai_identity(server, labels),
        policy=Policy(
            gate="confidence",
            temperature=gate.temperature,
            farthest=reach and reach.farthest,
            decision=decision,
        ),
        learner=AnalyticConfig(name="analytic"),
        learner_state=state,
        metrics={"table": {"texts": len(features_UD), "bought": len(bought), "kept": num_kept}},
    )


def _fitted(
    features_BD: NDArray[np.float32], label_B: NDArray[np.int64], num_labels: int, seed: int
) -> tuple[Analytic, Collaborator, NDArray[np.float32]]:
    """A network fitted in closed form to at least two rows, and for each the logits [B, C] that leave it out."""
    labels = torch.from_numpy(label_B)
    no_large = torch.full((len(labels), 1), torch.nan)
    rows = Batch(torch.from_numpy(features_BD), labels, no_large, torch.ones(len(labels)))
    learner, distill = Analytic(AnalyticConfig(name="analytic")), DistillConfig()
    collaborator = Collaborator(features_BD.shape[1], num_labels, NETWORK, "kan", seed)
    learner.absorb(collaborator, rows, distill, Ranks())
    learner.solve(collaborator, Ranks())
    collaborator.eval().requires_grad_(False)
    chunks = torch.split(torch.arange(len(rows)), _AT_ONCE)
    parts = (rows.take(places, rows.weights[places]) for places in chunks)
    left_out_BC = np.concatenate(
        [learner.left_out(collaborator, part, RowUnits(None, len(part)), distill)[0].numpy() for part in parts]
    )
    return learner, collaborator, left_out_BC


def _scores(collaborator: Collaborator, gate: Gate, features_UD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Gate scores [U]; judge and small model are one network."""
    parts = np.array_split(features_UD, range(_AT_ONCE, len(features_UD), _AT_ONCE))
    return np.concatenate([gate.score(part_nD, logits(collaborator, part_nD)[0]) for part_nD in parts])


def decision_keeping(score_U: NDArray[np.float64], num_kept: int) -> Decision:
    """The threshold above which `num_kept` of the scores lie; fewer if scores are equal."""
    if num_kept <= 0:
        return ESCALATE_ALL
    if num_kept >= len(score_U):
        return KEEP_ALL
    return Decision.of(float(np.sort(score_U)[len(score_U) - num_kept - 1]))

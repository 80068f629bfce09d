"""The small side that can be served, fitted to labelled texts, and a labelled table's bundle for the next file.

The bundle is trained on all bought answers, and not certified; its threshold keeps the share of the table's texts that
the job kept. Shapes: U texts, B of them bought, N new rows, D features, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import with_dim
from kcm.labelling.labelled import Labelled
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units as RowUnits

NETWORK = NetworkConfig(hidden=(), basis="quadratic", mixing=2048, shared=True)  # a control of `kcm run`
TASK = "table"
_AT_ONCE = 8192  # texts whose expanded features are in memory together


@dataclass(frozen=True, eq=False)
class FittedSide:
    """A small side that can be served: a network fitted in closed form to labelled texts, and a gate on its logits.

    `left_out_B` are the gate scores of the rows that it was fitted to, from logits that leave the row out.
    """

    collaborator: Collaborator
    gate: Gate
    learner: Analytic
    left_out_B: NDArray[np.float64]
    seed: int

    @classmethod
    def fit(cls, features_BD: NDArray[np.float32], label_B: NDArray[np.int64], num_labels: int, seed: int) -> Self:
        """Fit to rows with their labels; at least two rows."""
        labels = torch.from_numpy(label_B)
        no_large = torch.full((len(labels), 1), torch.nan)
        rows = Batch(torch.from_numpy(features_BD), labels, no_large, torch.ones(len(labels)))
        learner, distill = Analytic(AnalyticConfig(name="analytic")), DistillConfig()
        collaborator = Collaborator(features_BD.shape[1], num_labels, NETWORK, "quadratic", seed)
        learner.absorb(collaborator, rows, distill, Ranks())
        learner.solve(collaborator, Ranks())
        collaborator.eval().requires_grad_(False)
        chunks = torch.split(torch.arange(len(rows)), _AT_ONCE)
        parts = (rows.take(places, rows.weights[places]) for places in chunks)
        left_out_BC = np.concatenate(
            [learner.left_out(collaborator, part, RowUnits(None, len(part)), distill)[0].numpy() for part in parts]
        )
        gate = Gate("confidence", fit_temperature(left_out_BC, label_B))
        return cls(collaborator, gate, learner, gate.score(features_BD, left_out_BC), seed)

    def judged(self, features_ND: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Answers and gate scores of new rows, both [N]."""
        answers, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for part_nD in np.array_split(features_ND, range(_AT_ONCE, len(features_ND), _AT_ONCE)):
            logits_nC, _ = logits(self.collaborator, part_nD)  # judge and small model are one network
            answers.append(logits_nC.argmax(1))
            scores.append(self.gate.score(part_nD, logits_nC))
        return np.concatenate(answers), np.concatenate(scores)

    def bundle(
        self,
        labels: tuple[str, ...],
        encoder: EncoderConfig,
        encoder_identity: str,
        server: OpenAiConfig,
        decision: Decision,
        **parts: Any,
    ) -> Bundle:
        """A bundle; `parts` are further parts of a `Bundle`."""
        return Bundle(
            collaborator=self.collaborator,
            seed=self.seed,
            label_names=labels,
            task_names=(TASK,),
            encoder=with_dim(encoder, self.collaborator.in_features),
            encoder_identity=encoder_identity,
            large=server,
            large_identity=openai_identity(server, labels),
            policy=Policy(gate="confidence", temperature=self.gate.temperature, decision=decision),
            learner=AnalyticConfig(name="analytic"),
            learner_state=self.learner.state_dict(),
            **parts,
        )


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
    side = FittedSide.fit(features_UD[bought], labelled.answer_U[bought], len(labels), seed)
    _, score_U = side.judged(features_UD)
    score_U[bought] = side.left_out_B  # its own answer would make a text look too easy
    num_kept = int((~labelled.bought_U & ~labelled.failed_U).sum())
    return side.bundle(
        labels,
        encoder,
        encoder.identity(assets_dir),
        server,
        decision_keeping(score_U, num_kept),
        metrics={"table": {"texts": len(features_UD), "bought": len(bought), "kept": num_kept}},
    )


def decision_keeping(score_U: NDArray[np.float64], num_kept: int) -> Decision:
    """The threshold above which `num_kept` of the scores lie; fewer if scores are equal."""
    if num_kept <= 0:
        return ESCALATE_ALL
    if num_kept >= len(score_U):
        return KEEP_ALL
    return Decision.of(float(np.sort(score_U)[len(score_U) - num_kept - 1]))

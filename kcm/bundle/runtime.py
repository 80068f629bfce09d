"""Answering new inputs with a cascade; shared by evaluation, batch prediction and serving.

The small side judges all inputs in one pass; inputs that it does not keep go to the large model. Shapes: N inputs, D
features, C labels.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from kcm.bundle.answers import Answer, Failure, Input, Judgement, Route, Unreadable
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_encoder
from kcm.cascade.novelty import Novelty
from kcm.cascade.thresholds import FAR
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders import Encoder, encode_readable
from kcm.encoders.precomputed import vector_fault
from kcm.inputs.content import PROBE, Content
from kcm.large import Item, LargeAnswer


def probe_of(bundle: Bundle) -> Content:
    """An input that the models of every bundle with these parts and this width must be able to answer."""
    vector = np.zeros(bundle.collaborator.in_features, dtype=np.float32) if "vector" in bundle.reads else None
    return replace(PROBE, vector=vector)


def fault_of(bundle: Bundle, example: Input) -> str | None:
    """Why the cascade of `bundle` cannot answer an input, as far as that shows before the input is read."""
    if lacking := example.content.lacks(bundle.reads):
        return f"no {lacking}"
    if "vector" in bundle.reads and (fault := vector_fault(example.content, bundle.collaborator.in_features)):
        return fault
    is_known_task = example.task is None or example.task in bundle.task_names
    return None if is_known_task else f"no such task: {example.task}"


class SmallSide:
    """Encoder, judge, small model and gate of a bundle. Inputs at a distance of at least `farthest` escalate."""

    def __init__(self, bundle: Bundle, encoder: Encoder, device: str = "cpu", top_k: int | None = None) -> None:
        self.bundle, self.policy, self.top_k = bundle, bundle.policy, top_k
        self.gate = replace(bundle.gate, reach=None)  # a far input keeps its score, and escalates by its distance
        self.encoder, self.farthest = encoder, math.inf
        self._novelty = Novelty.of(bundle.learner_state)
        self._collaborator = bundle.collaborator.to(device)

    def judge(self, inputs: Sequence[Input]) -> list[Judgement | Unreadable]:
        """Judge all inputs in one pass; each costs its share of the seconds.

        Raises DataError for logits that are not numbers.
        """
        if not inputs:
            return []
        started = time.perf_counter()
        features_ND, faults = encode_readable(self.encoder, [item.content for item in inputs])
        encoded_s = (time.perf_counter() - started) / len(inputs)
        readable = [item for position, item in enumerate(inputs) if position not in faults]
        judged = iter(self.judge_features(features_ND, readable, encoded_s))
        return [Unreadable(faults[position]) if position in faults else next(judged) for position in range(len(inputs))]

    def judge_features(
        self, features_ND: NDArray[np.float32], inputs: Sequence[Input], encoded_s: float
    ) -> list[Judgement]:
        """Judge inputs by their features, which took `encoded_s` seconds each.

        Raises DataError for logits that are not numbers.
        """
        if not inputs:
            return []
        started = time.perf_counter()
        judge_NC, small_NC = logits(self._collaborator, features_ND)
        score_N = self.gate.score(features_ND, judge_NC, small_NC)
        tasks, policy = [item.task for item in inputs], self.policy  # another thread may replace the policy
        novelty_N = self._novelty.distances(judge_NC) if self._novelty else np.zeros(len(inputs))
        far_N = novelty_N > (math.inf if policy.farthest is None else policy.farthest)
        cut_N = policy.cuts(tasks, len(inputs))
        cut_N = np.where(cut_N == FAR, -math.inf, cut_N)
        threshold_N = np.where(far_N | (novelty_N >= self.farthest), math.inf, cut_N)
        keeps_N = score_N > threshold_N
        label_N = small_NC.argmax(axis=1)
        confidence_N = softmax(judge_NC / policy.temperature, axis=1).max(axis=1)
        probabilities_NC = softmax(small_NC / policy.temperature, axis=1)
        cost_s = encoded_s + (time.perf_counter() - started) / len(inputs)
        return [
            Judgement(
                label=int(label_N[row]),
                probabilities_C=probabilities_NC[row],
                judge_confidence=float(confidence_N[row]),
                gate_score=float(score_N[row]),
                threshold=float(threshold_N[row]),
                keeps=bool(keeps_N[row]),
                cost_s=cost_s,
                features_D=features_ND[row],
                novelty=float(novelty_N[row]),
                far=bool(far_N[row]),
            )
            for row in range(len(inputs))
        ]

    def questions(self, inputs: Sequence[Input], judgements: Sequence[Judgement | Unreadable]) -> list[Item]:
        """The escalated inputs as questions to the large model."""
        return [
            Item(example.id, example.content)
            for example, judgement in zip(inputs, judgements, strict=True)
            if isinstance(judgement, Judgement) and not judgement.keeps
        ]

    def answers(
        self, judgements: Sequence[Judgement | Unreadable], large: Sequence[LargeAnswer | Failure]
    ) -> list[Answer | Failure]:
        """Answers to all inputs, in order, from their judgements and the outcomes of the escalated ones."""
        escalated = iter(large)
        answers: list[Answer | Failure] = []
        for judgement in judgements:
            if isinstance(judgement, Unreadable):
                answers.append(judgement)
            elif judgement.keeps:
                answers.append(self._answer(judgement, judgement.label, judgement.probabilities_C, "small"))
            else:
                answers.append(self._large_answer(judgement, next(escalated)))
        return answers

    def _large_answer(self, judgement: Judgement, large: LargeAnswer | Failure) -> Answer | Failure:
        if isinstance(large, LargeAnswer) and large.label is not None:
            return self._answer(judgement, large.label, large.probabilities, "large", large.cost.seconds)
        reason = (large.reason if isinstance(large, Failure) else large.error) or "the large model gave no answer"
        if self.policy.on_large_failure == "error":
            return large if isinstance(large, Failure) else Failure(reason)
        spent_s = large.cost.seconds if isinstance(large, LargeAnswer) else 0.0
        answer = self._answer(judgement, judgement.label, judgement.probabilities_C, "small_degraded", spent_s)
        return replace(answer, fault=reason)

    def _answer(
        self,
        judgement: Judgement,
        label: int,
        probabilities_C: NDArray[np.floating] | None,
        route: Route,
        large_cost_s: float = 0.0,
    ) -> Answer:
        return Answer(
            label=self.bundle.answer_names[label],
            probabilities={} if probabilities_C is None else self._likeliest(probabilities_C),
            judge_confidence=judgement.judge_confidence,
            gate_score=judgement.gate_score,
            threshold=judgement.threshold if math.isfinite(judgement.threshold) else None,
            route=route,
            degraded=route == "small_degraded",
            cost_s=judgement.cost_s + large_cost_s,
            large_cost_s=large_cost_s,
            answer_probability=None if probabilities_C is None else float(probabilities_C[label]),
        )

    def _likeliest(self, probabilities_C: NDArray[np.floating]) -> dict[str, float]:
        # Not with numpy: its sort releases the interpreter lock to the thread that judges the next batch.
        label_probabilities = probabilities_C.tolist()
        order = sorted(range(len(label_probabilities)), key=label_probabilities.__getitem__, reverse=True)[: self.top_k]
        return {self.bundle.answer_names[label]: label_probabilities[label] for label in order}


@torch.inference_mode()
def logits(
    collaborator: Collaborator, features_ND: NDArray[np.float32], rows_per_batch: int = 4096
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Judge and small logits [N, C] of raw features, computed in float32 and widened to float64."""
    device = next(itertools.chain(collaborator.parameters(), collaborator.buffers())).device
    chunks = [
        collaborator(torch.from_numpy(features_ND[start : start + rows_per_batch]).to(device))
        for start in range(0, max(len(features_ND), 1), rows_per_batch)  # without rows, logits are [0, C]
    ]
    judge_NC, small_NC = (torch.cat([chunk[side] for chunk in chunks]).double().cpu().numpy() for side in (0, 1))
    return judge_NC, small_NC


def load_small_side(bundle: Bundle, assets_dir: Path, device: str = "cpu", top_k: int | None = None) -> SmallSide:
    """The small side with its frozen encoder; ArtefactError if it is not the encoder of the bundle."""
    return SmallSide(bundle, load_encoder(bundle, assets_dir, device), device, top_k)

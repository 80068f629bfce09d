"""Collaboration losses: the large model teaches the small one, and the judge anchors it (arXiv 2510.20278, section 3).

With judge `F_j`, small `F_s` and large `F_l` on a distillation pool:

    L = CE(labels) + large_weight * L_ls + judge_weight * L_js
    L_ls = KL(p_l || p_s) if the judge escalates and max p_l > large_confidence
    L_js = KL(p_j || p_s) if the judge keeps

Softmax is taken once, from logits, and the teachers are detached.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kcm.config import Config

SMOOTHING = 0.1  # for a teacher that gave only a label, which is sometimes wrong


class DistillConfig(Config):
    """Weights and conditions of the two distillation losses."""

    large_weight: float = Field(1.0, ge=0, description="Weight of L_ls: the large model teaches the small one.")
    judge_weight: float = Field(0.5, ge=0, description="Weight of L_js: the judge anchors the small one.")
    keep_confidence: float = Field(0.9, gt=0, lt=1, description="In training, the judge keeps surer rows than this.")
    large_confidence: float = Field(0.5, ge=0, lt=1, description="Only large answers surer than this are taught.")
    temperature: float = Field(1.0, gt=0, description="Shared softmax temperature of teacher and student.")


def distillation_loss(
    judge_NC: Tensor, small_NC: Tensor, large_NC: Tensor, config: DistillConfig, seen_C: Tensor | None = None
) -> Tensor:
    """Weighted L_ls + L_js per row, [N].

    `judge_NC`, `small_NC` are logits; `large_NC` holds probabilities, with NaN rows for missing answers and one-hot
    rows if the large model gave only a label, which are smoothed. `seen_C` (bool) restricts and renormalises the large
    model's probabilities to the classes seen so far. If there is no teacher, judge and small stay equal and need no
    anchor: it would only add rounding errors.
    """
    if config.large_weight == 0:
        return small_NC.new_zeros(len(small_NC))
    judge_NC = judge_NC.detach()
    keeps_N = judge_NC.softmax(-1).amax(-1) > config.keep_confidence
    student_NC = F.log_softmax(small_NC / config.temperature, -1)
    judge_teacher_NC = F.log_softmax(judge_NC / config.temperature, -1)

    answered_N = large_NC.isfinite().all(-1)
    large_NC = _teacher(torch.where(answered_N[:, None], large_NC, 1.0), config, seen_C)
    teaches_N = answered_N & ~keeps_N & (large_NC.amax(-1) > config.large_confidence)

    floor = torch.finfo(student_NC.dtype).tiny
    by_large_N = _divergence(large_NC.clamp_min(floor).log(), student_NC, config.temperature)
    by_judge_N = _divergence(judge_teacher_NC, student_NC, config.temperature)
    return config.large_weight * by_large_N * teaches_N + config.judge_weight * by_judge_N * keeps_N


def _teacher(large_NC: Tensor, config: DistillConfig, seen_C: Tensor | None) -> Tensor:
    """The large model's probabilities at the shared temperature, over the seen classes only."""
    only_label_N1 = large_NC.amax(-1, keepdim=True) == 1
    large_NC = torch.where(only_label_N1, _smooth(large_NC), large_NC)
    softened_NC = large_NC if config.temperature == 1 else large_NC ** (1 / config.temperature)
    if seen_C is not None:
        softened_NC = softened_NC * seen_C
    return softened_NC / softened_NC.sum(-1, keepdim=True).clamp_min(1e-12)


def _smooth(probabilities_NC: Tensor) -> Tensor:
    """`SMOOTHING` of the mass spread evenly over all labels."""
    return probabilities_NC * (1 - SMOOTHING) + SMOOTHING / probabilities_NC.shape[-1]


def _divergence(teacher_NC: Tensor, student_NC: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) per row of two log-probabilities, scaled by T^2 (Hinton et al., 1503.02531).

    The paper uses the other direction, which is infinite if a teacher has a zero.
    """
    return temperature**2 * (teacher_NC.exp() * (teacher_NC - student_NC)).sum(-1)

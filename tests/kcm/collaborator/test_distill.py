"""The collaboration losses teach where they should, what they should, and nothing else."""

import pytest
import torch
from scipy.special import rel_entr, softmax

from kcm.collaborator.distill import DistillConfig, distillation_loss

# Row 0: the judge keeps. Row 1: it escalates and the large model is sure. Row 2: it escalates, the large one is unsure.
JUDGE = torch.tensor([[4.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
SMALL = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.5, 0.0], [0.3, 0.2, 0.1]])
LARGE = torch.tensor([[0.05, 0.9, 0.05], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
CONFIG = DistillConfig(large_weight=2.0, judge_weight=0.5, keep_confidence=0.9, large_confidence=0.5)


def kl(teacher, student_logits) -> float:
    """KL(teacher || softmax(student)) by scipy."""
    return float(rel_entr(teacher, softmax(student_logits)).sum())


def test_large_teaches_escalated_rows_and_judge_kept_ones() -> None:
    loss = distillation_loss(JUDGE, SMALL, LARGE, CONFIG)
    expected = [
        0.5 * kl(softmax(JUDGE[0].numpy()), SMALL[0].numpy()),
        2.0 * kl(LARGE[1].numpy(), SMALL[1].numpy()),
        0.0,
    ]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_only_the_small_model_learns_from_distillation() -> None:
    judge, small = JUDGE.clone().requires_grad_(), SMALL.clone().requires_grad_()
    distillation_loss(judge, small, LARGE, CONFIG).sum().backward()
    assert judge.grad is None
    assert small.grad.abs().sum() > 0


def test_row_without_answer_teaches_nothing() -> None:
    large = LARGE.clone()
    large[1] = torch.nan
    small = SMALL.clone().requires_grad_()
    loss = distillation_loss(JUDGE, small, large, CONFIG)
    loss.sum().backward()
    assert loss[1] == 0
    assert torch.isfinite(small.grad).all()


def test_large_model_is_restricted_to_seen_classes() -> None:
    seen = torch.tensor([True, True, False])
    loss = distillation_loss(JUDGE[1:2], SMALL[1:2], LARGE[1:2], CONFIG, seen)
    assert loss.item() == pytest.approx(2.0 * kl([0.9 / 0.95, 0.05 / 0.95, 0.0], SMALL[1].numpy()), rel=1e-5)


def test_temperature_softens_teacher_and_student_alike() -> None:
    config = CONFIG.model_copy(update={"temperature": 2.0})
    loss = distillation_loss(JUDGE[:1], SMALL[:1], LARGE[:1], config)
    assert loss.item() == pytest.approx(4 * 0.5 * kl(softmax(JUDGE[0].numpy() / 2), SMALL[0].numpy() / 2), rel=1e-5)


def test_label_without_probabilities_is_smoothed() -> None:
    config = DistillConfig(large_weight=2.0, judge_weight=0)
    loss = distillation_loss(JUDGE[1:2], SMALL[1:2], torch.tensor([[0.0, 1.0, 0.0]]), config)
    assert loss.item() == pytest.approx(2.0 * kl([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3], SMALL[1].numpy()), rel=1e-5)

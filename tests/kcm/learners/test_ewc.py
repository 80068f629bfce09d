"""Elastic weight consolidation adds the gradient of the paper's penalty, however many tasks its two tensors sum up."""

import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Batch, LearnedTask
from kcm.learners.ewc import EwcConfig
from kcm.learners.ranks import Ranks

DECAY = 0.5


def task_rows(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(0, 3, (9,), generator=generator)
    return Batch(torch.randn(9, 4, generator=generator), labels, torch.full((9, 3), torch.nan), torch.ones(9))


def learned(collaborator: Collaborator, rows: Batch) -> LearnedTask:
    every = torch.ones(3, dtype=torch.bool)
    return LearnedTask(collaborator, [rows], len(rows), every, every, Ranks(), DistillConfig())


def empirical_fisher(collaborator: Collaborator, rows: Batch) -> torch.Tensor:
    """Mean over rows of the squared gradient of each network's log-likelihood, a row at a time."""
    total = torch.zeros(sum(p.numel() for p in collaborator.parameters()))
    for features, label in zip(rows.features, rows.labels, strict=True):
        outputs = collaborator(features.unsqueeze(0))
        loss = sum(F.cross_entropy(logits, label.unsqueeze(0)) for logits in outputs[: len(collaborator.networks)])
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(collaborator.parameters()))]).square()
    return total / len(rows)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["kan", "mlp"])
@pytest.mark.parametrize(("online", "mixing"), [(False, 0), (True, 0), (False, 5)])
def test_the_added_gradient_is_that_of_the_penalty_of_the_paper(shared, kind, online, mixing) -> None:
    network = NetworkConfig(hidden=(3,), grid_size=2, shared=shared, mixing=mixing)
    collaborator = Collaborator(4, 3, network, kind, seed=0)
    learner = EwcConfig(strength=7.0, fisher="empirical", online=online, decay=DECAY).build(0)
    penalties: list[tuple[torch.Tensor, torch.Tensor]] = []  # Fisher and place, task by task

    def theta() -> torch.Tensor:
        return torch.cat([p.flatten() for p in collaborator.parameters()])

    for number in range(3):
        penalties.append((empirical_fisher(collaborator, task_rows(number)), theta().detach()))
        learner.end_task(learned(collaborator, task_rows(number)))
        with torch.no_grad():
            for parameter in collaborator.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))

    if online:
        fisher = sum(DECAY ** (2 - number) * fisher for number, (fisher, _) in enumerate(penalties))
        penalty = 7.0 / 2 * (fisher * (theta() - penalties[-1][1]).square()).sum()
    else:
        penalty = 7.0 / 2 * sum((fisher * (theta() - place).square()).sum() for fisher, place in penalties)
    expected = torch.autograd.grad(penalty, list(collaborator.parameters()))
    for parameter in collaborator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        learner.before_update(dict(collaborator.named_parameters()))
    for parameter, gradient in zip(collaborator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)

"""Synaptic intelligence, worked out on a quadratic loss."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kcm.learners.si import Si, SiConfig

CURVATURE = torch.tensor([4.0, 1.0, 0.0])  # L = sum_i a_i theta_i^2 / 2, whose gradient is a_i theta_i


def descend(learner: Si, theta: nn.Parameter, *, rate: float, steps: int) -> None:
    parameters = {"theta": theta}
    for _ in range(steps):
        theta.grad = CURVATURE * theta.detach()
        with torch.no_grad():
            learner.before_update(parameters)
            theta -= rate * theta.grad
            learner.after_update(parameters)


def finish(learner: Si, theta: nn.Parameter) -> None:
    learner.end_task(SimpleNamespace(collaborator=SimpleNamespace(named_parameters=lambda: [("theta", theta)])))


def test_one_step_by_hand() -> None:
    theta, learner = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])), SiConfig(strength=1.0, damping=0.1).build(0)
    descend(learner, theta, rate=0.1, steps=1)
    # Gradients 4, 2, 0 move by -0.4, -0.2, 0, so that omega is 1.6, 0.4, 0.
    assert learner.state_dict()["path"]["theta"].tolist() == pytest.approx([1.6, 0.4, 0.0])
    finish(learner, theta)
    state = learner.state_dict()
    assert state["importance"]["theta"].tolist() == pytest.approx([1.6 / (0.16 + 0.1), 0.4 / (0.04 + 0.1), 0.0])
    assert state["anchor"]["theta"].tolist() == pytest.approx([0.6, 1.8, 3.0])
    assert state["path"]["theta"].tolist() == [0, 0, 0]


def test_the_path_integral_of_small_steps_is_the_loss_that_was_shed() -> None:
    theta, learner = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])), SiConfig(strength=1.0, damping=0.1).build(0)
    before = CURVATURE * theta.detach().square() / 2
    descend(learner, theta, rate=1e-3, steps=800)
    shed = before - CURVATURE * theta.detach().square() / 2
    torch.testing.assert_close(learner.state_dict()["path"]["theta"], shed, rtol=5e-3, atol=1e-6)


def test_the_penalty_pulls_to_the_anchor_and_stays_out_of_the_path_integral() -> None:
    theta, learner = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])), SiConfig(strength=0.5, damping=0.1).build(0)
    descend(learner, theta, rate=0.1, steps=1)
    finish(learner, theta)
    importance, anchor = (learner.state_dict()[key]["theta"] for key in ("importance", "anchor"))
    with torch.no_grad():
        theta += torch.tensor([1.0, -1.0, 5.0])
        place, theta.grad = theta.clone(), torch.tensor([1.0, 0.0, 0.0])
        learner.before_update({"theta": theta})
        # d/dtheta of 0.5 * Omega (theta - anchor)^2, beside the loss's own gradient.
        expected = torch.tensor([1.0, 0.0, 0.0]) + importance * (place - anchor)
        torch.testing.assert_close(theta.grad, expected)
        theta -= 0.1 * theta.grad
        learner.after_update({"theta": theta})
    moved = theta.detach() - place
    torch.testing.assert_close(learner.state_dict()["path"]["theta"], torch.tensor([-1.0, 0.0, 0.0]) * moved)


def test_a_parameter_that_worked_against_the_loss_is_not_pushed_away() -> None:
    theta, learner = nn.Parameter(torch.tensor([1.0, 1.0, 1.0])), SiConfig(strength=1.0, damping=0.1).build(0)
    descend(learner, theta, rate=-0.1, steps=3)  # uphill
    assert learner.state_dict()["path"]["theta"][0] < 0
    finish(learner, theta)
    assert learner.state_dict()["importance"]["theta"].tolist() == [0, 0, 0]

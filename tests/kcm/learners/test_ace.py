"""The asymmetric cross-entropy lets new rows push old labels down no more, whichever learner remembers."""

import pytest
import torch
from torch.nn import functional as F

from examples.learners.der import DerConfig
from examples.learners.lwf import LwfConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Classes
from kcm.learners.bounds import FinetuneConfig
from kcm.learners.replay import ReplayConfig

CURRENT, SEEN = torch.tensor([0, 0, 1, 1, 0]).bool(), torch.tensor([1, 1, 1, 1, 0]).bool()  # two old labels, one unseen
CONFIGS = [
    ReplayConfig(memory=40, margin=3.0),
    DerConfig(memory=40, margin=3.0),
    LwfConfig(memory=40, margin=3.0),
    LwfConfig(margin=3.0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_stream_rows_see_lowered_old_labels_memory_sees_all(config) -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([2, 3, UNLABELLED, 0, 2])
    found = config.build(0).label_loss(logits, labels, 3, Classes(CURRENT, SEEN))
    e = logits.exp()
    lowered = 2.718281828459045**-3.0
    expected = [
        -(e[0, 2] / (lowered * (e[0, 0] + e[0, 1]) + e[0, 2] + e[0, 3])).log(),
        -(e[1, 3] / (lowered * (e[1, 0] + e[1, 1]) + e[1, 2] + e[1, 3])).log(),
        torch.tensor(0.0, dtype=torch.float64),
        -(e[3, 0] / e[3, :4].sum()).log(),
        -(e[4, 2] / e[4, :4].sum()).log(),
    ]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("seen", [CURRENT, torch.ones(5).bool()], ids=["first task", "all labels again"])
def test_the_loss_is_plain_where_no_label_is_old(seen) -> None:
    logits, labels = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 3, 2, 3])
    classes = Classes(CURRENT if seen is CURRENT else seen, seen)
    found = CONFIGS[0].build(0).label_loss(logits, labels, 2, classes)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"))


def test_it_forgets_less_than_plain_replay(make_trainer, digits) -> None:
    plain, asymmetric = (
        make_trainer(digits, ReplayConfig(memory=20, margin=margin), kind="mlp", epochs=4) for margin in (None, 3.0)
    )
    for trainer in (plain, asymmetric):
        trainer.run()
    assert sum(asymmetric.accuracy["small"][-1]) > sum(plain.accuracy["small"][-1]) + 0.25  # 5 points of average


def test_sgd_has_momentum_a_rate_of_its_own_and_no_decay(make_trainer, digits) -> None:
    trainer = make_trainer(digits[:2], FinetuneConfig(), kind="linear", epochs=1, optimizer="sgd", sgd_rate=0.05)
    weight = trainer.collaborator.judge.layers[0].weight
    place, velocity = weight.detach().clone(), torch.zeros_like(weight)
    steps = trainer.num_steps(0)
    for step in range(steps):
        rate = 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
        trainer.step()
        velocity = 0.9 * velocity + weight.grad
        place = place - rate * velocity
        torch.testing.assert_close(weight.detach(), place)
    assert trainer.state_dict()["optimizer"] == {}  # the next task begins without momentum

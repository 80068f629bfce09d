"""Networks on a base of class means or LDA: the base is of all rows so far, whoever counts them and in what order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import NetworkConfig
from kcm.errors import ConfigError, DataError
from kcm.inputs.labels import UNLABELLED
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.bounds import FinetuneConfig, JointConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from tests.kcm.learners.tasks import changed, learned, made_trainer, part_of, rows_of

KINDS = ["kan", "mlp", "linear", "random_relu"]


def make(tasks, learner=None, *, base="means", kind="kan") -> SequenceTrainer:
    options = {"spline_order": 1, "base_activation": "none", "centred": True, "zero_start": True}
    train = TrainConfig(num_epochs=1, batch_size=50, optimizer="sgd", sgd_rate=0.02)
    network = NetworkConfig(hidden=(), base=base, **options)
    return made_trainer(tasks, learner or FinetuneConfig(), network, kind=kind, train=train)


def base_of(state: dict) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state["collaborator"].items() if name.startswith("base.")}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_network_plus_twenty_times_mean_score(digits, kind) -> None:
    trainer = make(digits, kind=kind)
    while trainer.position.task < 2:
        trainer.step()
    trainer.step()
    train = rows_of(digits[:3], "train")  # the base knows the task that has begun
    x = F.normalize(train.features.double(), dim=1)
    means = torch.stack([x[train.labels == c].mean(0) for c in range(6)])
    test = rows_of(digits, "test").features
    x = F.normalize(test.double(), dim=1)
    expected = 20 * (x @ means.T - means.square().sum(1) / 2)
    with torch.no_grad():
        judge, small = trainer.collaborator(test)
        for logits, network in ((judge, trainer.collaborator.judge), (small, trainer.collaborator.small)):
            residual = network(trainer.collaborator.inputs(test))[:, :6]
            torch.testing.assert_close((logits[:, :6] - residual).double(), expected, atol=1e-3, rtol=1e-4)
    assert int(judge.argmax(1).max()) < 6  # labels that nobody has seen are never the answer


@pytest.mark.parametrize("base", ["means", "lda"])
def test_the_base_keeps_what_finetuning_alone_forgets(digits, base) -> None:
    alone, based = (make(digits, base=base, kind="linear") for base in ("none", base))
    for trainer in (alone, based):
        trainer.run()
    assert np.mean(based.accuracy["small"][-1]) > np.mean(alone.accuracy["small"][-1]) + 0.2


@pytest.mark.parametrize("base", ["means", "lda"])
def test_row_order_and_repeated_tasks_keep_the_base(digits, base) -> None:
    order = torch.randperm(digits[0].num_rows("train"), generator=torch.Generator().manual_seed(1))
    shuffled = part_of(digits[0], digits[0].name, order)
    expected = base_of(learned(make(digits[:3], base=base)))
    # `joint` streams all tasks again and starts its networks anew, and counts each row once all the same.
    for state in (
        learned(make([shuffled, *digits[1:3]], base=base)),
        learned(make(digits[:3], JointConfig(), base=base)),
    ):
        for name, value in base_of(state).items():
            torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-6)


def test_unlabelled_rows_do_not_count_and_nan_is_refused(digits) -> None:
    task = part_of(digits[0], "task", range(30), 3)
    rows = rows_of([task], "train")
    hidden = torch.where(torch.arange(30) < 20, rows.labels, UNLABELLED)
    trainer = make([changed(task, lambda split, each: replace(each, labels=hidden) if split == "train" else each)])
    trainer.step()
    base = trainer.collaborator.base
    assert base.count_C.sum() == 20
    torch.testing.assert_close(base.sum_CD.sum(0), F.normalize(rows.features[:20].double(), dim=1).sum(0))
    with pytest.raises(DataError, match="NaN"):
        make([changed(task, lambda _, each: replace(each, features=each.features * torch.nan))]).step()


def test_a_closed_form_takes_no_base(digits) -> None:
    with pytest.raises(ConfigError, match=r"network\.base = 'means'.*Set network\.base: none"):
        make(digits, AnalyticConfig())

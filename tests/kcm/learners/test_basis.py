"""`basis: auto` of a KAN: left-out train rows of the first task choose splines or parabolas, for the whole sequence."""

import functools
from typing import Any

import pytest
import torch

from kcm.collaborator.collaborator import BASES, Basis, NetworkConfig
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.metrics.intervals import Units
from tests.kcm.learners.tasks import assert_close, learned, made_trainer, rows_of, task_of

AUTO = NetworkConfig(hidden=(), basis="auto", mixing=30, grid_size=4, spline_order=2)
FIRST = 120  # rows of a chunk
MASKED = TrainConfig(mask_unseen=True)  # else networks are measured before anything is learned


def waves(name: str, num_rows: int) -> TensorRows:
    """Three labels by waves of one input of three, which parabolas do not follow."""
    values_ND, length_N = _values(num_rows, 3)
    return _task(name, values_ND, torch.sin(9 * values_ND[:, 0] / length_N))


def products(name: str, num_rows: int) -> TensorRows:
    """Three labels by the product of two inputs of eight, which is a sum of two parabolas."""
    values_ND, _ = _values(num_rows, 8)
    return _task(name, values_ND, values_ND[:, 0] * values_ND[:, 1])


def _values(num_rows: int, num_inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    values_ND = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))[:num_rows]
    values_ND[:, num_inputs:] *= 0.01
    return values_ND, values_ND.norm(dim=1)


def _task(name: str, values_ND: torch.Tensor, signal_N: torch.Tensor) -> TensorRows:
    labels_N = torch.bucketize(signal_N, torch.tensor([-0.4, 0.4]))
    rows = Batch(values_ND, labels_N, torch.full((len(labels_N), 1), torch.nan), torch.ones(len(labels_N)))
    ids = [f"{name} {row}" for row in range(len(labels_N))]
    return task_of(name, (ids, rows), (ids, rows))


def make(tasks: list[TensorRows], basis: Basis = "auto", ranks: Ranks | None = None) -> SequenceTrainer:
    network = AUTO if basis == "auto" else AUTO.with_basis(basis)
    return made_trainer(tasks, AnalyticConfig(chunk_size=FIRST), network, train=MASKED, ranks=ranks, num_labels=3)


@pytest.mark.parametrize(("task", "best"), [(waves, "pspline"), (products, "quadratic")])
def test_the_basis_of_fewer_left_out_mistakes_is_chosen_once(task: Any, best: Basis) -> None:
    """Promise: KCM's basis is chosen on train rows of the first task; all else is as if it had been configured."""
    first = task("first", FIRST)
    mistakes = {}
    for basis in BASES:
        trainer = make([first], basis)
        trainer.run()
        rows = rows_of([first], "train")
        judge_NC, _ = trainer.learner.left_out(trainer.collaborator, rows, Units(None, FIRST), trainer.distill)
        mistakes[basis] = int((judge_NC.argmax(1) != rows.labels).sum())
    assert min(mistakes, key=lambda basis: mistakes[basis]) == best
    tasks = [task("first", 300), waves("second", 200), products("third", 200)]
    chosen, named = make(tasks), make(tasks, best)
    assert_close(learned(chosen), learned(named), rtol=0, atol=0)
    assert chosen.collaborator.network == AUTO.with_basis(best)
    assert chosen.collaborator.form == {"pspline": "spline", "quadratic": "quadratic"}[best]


def test_ranks_choose_alike_and_a_chosen_basis_is_gone_on_with(on_ranks: Any) -> None:
    """Promise: neither the number of workers nor an interruption after the choice changes what is learned."""
    tasks = [products("first", 300), waves("second", 200)]

    def interrupted(ranks: Ranks) -> dict[str, Any]:
        begun = make(tasks, ranks=ranks)
        begun.step()
        resumed = make(tasks, ranks=ranks)
        resumed.load_state_dict(begun.state_dict())
        return learned(resumed)

    alone = learned(make(tasks))
    assert alone["basis"] == "quadratic"
    assert_close(interrupted(Ranks()), alone, rtol=0, atol=0)
    for world_size in (2, 4):
        assert_close(on_ranks(world_size, functools.partial(interrupted)), alone, rtol=1e-4, atol=1e-5)

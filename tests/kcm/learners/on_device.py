"""Promise: every learner and basis computes on its device what it computes on the CPU, and its state has no device."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from examples.learners.der import DerConfig
from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from examples.learners.si import SiConfig
from kcm.closed_form.left_out import left_out_of_sums
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Batch, LearnerConfig
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.bounds import FinetuneConfig, JointConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.slda import SldaConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from kcm.metrics.intervals import Units
from tests.kcm.learners.tasks import assert_close, task_of

NUM_LABELS, DIM = 4, 6
HIDDEN = NetworkConfig(hidden=(4,), grid_size=2)
LINE = {"hidden": (), "grid_size": 4, "spline_order": 2}
MIXED = {**LINE, "mixing": 8}
SOLVED = {
    "spline": NetworkConfig(**LINE),
    "centred": NetworkConfig(**LINE, centred=True, base_activation="none", scaling="first_task"),
    "mixing": NetworkConfig(**MIXED),
    "pspline": NetworkConfig(**MIXED, basis="pspline"),
    "quadratic": NetworkConfig(**MIXED, basis="quadratic"),
    "relu": NetworkConfig(**MIXED, basis="relu"),
}
STEPS: dict[str, tuple[LearnerConfig, NetworkConfig, NetworkKind]] = {
    "finetune": (FinetuneConfig(), HIDDEN, "kan"),
    "joint": (JointConfig(), HIDDEN, "kan"),
    "replay": (ReplayConfig(memory=10, batch_size=4), HIDDEN, "kan"),
    "replay of an mlp": (ReplayConfig(memory=10, batch_size=4), HIDDEN, "mlp"),
    "er-ace": (ReplayConfig(memory=10, batch_size=4, margin=2.0), HIDDEN, "kan"),
    "der": (DerConfig(memory=10, batch_size=4), HIDDEN, "kan"),
    "ewc": (EwcConfig(), HIDDEN, "kan"),
    "lwf": (LwfConfig(memory=10, batch_size=4), HIDDEN, "kan"),
    "si": (SiConfig(), HIDDEN, "kan"),
    "on class means": (FinetuneConfig(), NetworkConfig(hidden=(), base="means"), "kan"),
    "lwf on lda": (LwfConfig(), NetworkConfig(hidden=(), base="lda", shared=True), "kan"),
    **{basis: (ReplayConfig(memory=10, batch_size=4), network, "kan") for basis, network in SOLVED.items()},
}
Rows = tuple[list[str], Batch]


@pytest.fixture(scope="session")
def device() -> torch.device:
    from tests.pretend_device import DEVICE  # registers the device with torch

    return DEVICE


def made_task(number: int, size: int) -> TensorRows:
    """Rows of two labels, of which some are unlabelled, with answers of a large model to most."""
    generator = torch.Generator().manual_seed(number)

    def rows(split: str, size: int) -> Rows:
        labels = torch.randint(2, (size,), generator=generator) + 2 * number
        features = torch.randn(size, DIM, generator=generator) + torch.eye(NUM_LABELS, DIM)[labels]
        large = torch.softmax(4 * torch.eye(NUM_LABELS)[labels] + torch.rand(size, NUM_LABELS, generator=generator), 1)
        large[::7] = torch.nan
        if split == "train":
            labels[::5] = UNLABELLED
        return [f"{number} {split} {row}" for row in range(size)], Batch(features, labels, large, torch.ones(size))

    return task_of(f"task {number}", rows("train", size), rows("test", 12))


def trained(
    device: torch.device | str,
    learner: LearnerConfig,
    network: NetworkConfig,
    kind: NetworkKind,
    size: int,
    masked: bool,
) -> SequenceTrainer:
    """Two tasks, learned by a trainer that was interrupted in the second and continued from its state."""
    tasks = [made_task(number, size) for number in range(2)]
    train = TrainConfig(num_epochs=2, batch_size=16, learning_rate=1e-2, mask_unseen=masked)

    def made() -> SequenceTrainer:
        collaborator = Collaborator(DIM, NUM_LABELS, network, kind, seed=0).to(device)
        return trainer_of(collaborator, learner.build(0), tasks, train, DistillConfig(), seed=0)

    first, second = made(), made()
    while first.position.task == 0:
        first.step()
    if not learner.closed_form:
        first.step()
    second.load_state_dict(first.state_dict())
    second.run()
    return second


def assert_same_on(device: torch.device, *choices: Any) -> tuple[SequenceTrainer, SequenceTrainer]:
    """Trainers on the CPU and on the device, after the same training, with states that are equal and on the CPU."""
    on_cpu, there = (trained(place, *choices) for place in ("cpu", device))
    assert there.collaborator.judge.state_dict()  # not empty
    assert {parameter.device.type for parameter in there.collaborator.parameters()} == {device.type}
    expected, state = on_cpu.state_dict(), there.state_dict()
    assert {tensor.device.type for tensor in _tensors(state)} == {"cpu"}
    assert_close(state, expected, atol=1e-5, rtol=1e-5)
    return on_cpu, there


def _tensors(value: Any) -> list[torch.Tensor]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in parts for tensor in _tensors(part)]


@pytest.mark.parametrize("masked", [False, True], ids=["all labels", "labels so far"])
@pytest.mark.parametrize("name", STEPS)
def test_steps_are_equal_on_a_device(device: torch.device, name: str, masked: bool) -> None:
    assert_same_on(device, *STEPS[name], 30, masked)


@pytest.mark.parametrize("size", [20, 120], ids=["fewer rows than inputs", "more rows than inputs"])
@pytest.mark.parametrize(
    ("learner", "kind"),
    [(AnalyticConfig(chunk_size=16), "kan"), (AnalyticConfig(equal_classes=0.5), "random_relu"), (SldaConfig(), "kan")],
    ids=["analytic", "random units", "slda"],
)
@pytest.mark.parametrize("basis", SOLVED)
def test_closed_forms_are_equal_on_a_device(
    device: torch.device, basis: str, learner: LearnerConfig, kind: NetworkKind, size: int
) -> None:
    trainers = assert_same_on(device, learner, SOLVED[basis], kind, size, True)
    if not isinstance(learner, AnalyticConfig):
        return
    rows = made_task(0, size).read("train", 0, size).labelled().widened(NUM_LABELS)
    units = Units(None, len(rows))
    expected, found = (
        trainer.learner.left_out(trainer.collaborator, rows.to(trainer.device), units, trainer.distill)
        for trainer in trainers
    )
    assert {part.device.type for part in found} == {device.type}
    novel, novel_there = (
        trainer.learner.without_own_class(*logits, rows.labels.to(trainer.device))
        for trainer, logits in zip(trainers, (expected, found), strict=True)
    )
    for ours, theirs in zip((*found, *novel_there), (*expected, *novel), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-5, rtol=1e-5)


def test_groups_are_left_out_alike_on_a_device(device: torch.device) -> None:
    """A group of rows is left out whole, by a system of equations on the device."""
    trainer = trained("cpu", AnalyticConfig(), SOLVED["spline"], "kan", 60, True)
    assert isinstance(trainer.learner, Analytic)
    sums = trainer.learner.sums
    assert sums is not None
    there = type(sums).from_state({name: part.to(device) for name, part in sums.state_dict().items()})
    generator, size = torch.Generator().manual_seed(0), len(sums.gram_PP)
    inputs, targets = (torch.rand(12, width, dtype=torch.float64, generator=generator) for width in (size, 8))
    units = Units([row // 3 for row in range(12)], 12)
    strengths = [0.5, 0.25]
    expected = left_out_of_sums(sums, strengths, inputs, targets, units)
    found = left_out_of_sums(there, strengths, inputs.to(device), targets.to(device), units)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_tensors_of_two_devices_do_not_mix(device: torch.device) -> None:
    """The pretend device refuses what a GPU refuses: without that, the tests above would show nothing."""
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2).to(device) + torch.ones(2)


def test_benchmark_of_a_gpu_needs_torch_alone() -> None:
    """Promise: it starts without Ray, and says what it could not measure."""
    script = "import runpy, sys; sys.argv[1:] = ['--quick']; runpy.run_module('benchmarks.gpu', run_name='__main__')"
    alone = f"{script}; assert not {{'ray', 'mlflow'}} & sys.modules.keys()"
    shown = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True).stdout
    assert "rows a second into the sums" in shown
    assert ("not measured: no GPU" in shown) != torch.cuda.is_available()

"""A finished trainer goes on with one more task and ends, bit for bit, where a trainer of all these tasks ends."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from kcm.collaborator.collaborator import NetworkConfig
from kcm.components import FAMILIES
from kcm.errors import ArtefactError, ConfigError
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Batch, LearnerConfig
from kcm.learners.bounds import FinetuneConfig, JointConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from tests.kcm.learners.tasks import changed, made_trainer, part_of

# Labels in the order of their tasks; and in another one, where a label waits between others that came before it.
IN_ORDER, SHUFFLED = (0, 1, 2, 3, 4, 5, 6, 7), (5, 0, 2, 1, 3, 4, 7, 6)
EXAMPLES = [f"examples.learners.{name}:{name.title()}Config" for name in ("der", "ewc", "lwf", "si")]
EVERY_LEARNER = [
    FAMILIES["learner"].find(tag)(**({"memory": 40} if "memory" in FAMILIES["learner"].find(tag).model_fields else {}))
    for tag in (*FAMILIES["learner"].ours, *EXAMPLES)
]
DESCENDING = [learner for learner in EVERY_LEARNER if not learner.closed_form]
MORE = [
    ReplayConfig(memory=40, margin=2.0),
    LwfConfig(memory=0),
    EwcConfig(fisher="empirical", online=True, decay=0.9),
]
SGD = {"optimizer": "sgd", "sgd_rate": 0.05}


def sequence(digits: Sequence[TensorRows], num_tasks: int, order: Sequence[int] = IN_ORDER) -> list[TensorRows]:
    """The first tasks of two classes each; the large model has been asked about their labels, and of no later one."""
    return [_relabelled(digits[number], number, order, num_labels=2 * num_tasks) for number in range(num_tasks)]


def _relabelled(task: TensorRows, number: int, order: Sequence[int], num_labels: int) -> TensorRows:
    renamed, asked = torch.tensor([*order, 8, 9]), 2 * (3 if number < 3 else 4)

    def relabel(split: str, rows: Batch) -> Batch:
        labels = renamed[rows.labels]
        noise = torch.randn(len(rows), asked, generator=torch.Generator().manual_seed(number))
        large = (noise + 4 * F.one_hot(labels, asked)).softmax(-1)
        large = F.pad(large, (0, max(0, num_labels - asked)))
        large[::7] = torch.nan  # not asked
        if split == "train":
            labels = torch.where(torch.arange(len(rows)) % 5 == 4, UNLABELLED, labels)
        return replace(rows, labels=labels, large_probabilities=large)

    return changed(part_of(task, task.name, range(90), 90), relabel)


def begun(
    tasks: Sequence[TensorRows],
    learner: LearnerConfig,
    network: NetworkConfig,
    kind: str,
    num_labels: int = 0,
    mask_unseen: bool = True,
    **train: Any,
) -> SequenceTrainer:
    config = TrainConfig(num_epochs=2, batch_size=32, learning_rate=1e-2, mask_unseen=mask_unseen, **train)
    sizes: dict[str, Any] = {"num_labels": num_labels or 2 * len(tasks), "seed": 3}
    return made_trainer(tasks, learner, network, kind=kind, train=config, **sizes)


def saved(trainer: SequenceTrainer) -> dict[str, Any]:
    """The state as a file gives it back."""
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def finished(trainer: SequenceTrainer) -> SequenceTrainer:
    trainer.run()
    return trainer


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, Tensor):
        return ours.shape == theirs.shape and torch.equal(ours.nan_to_num(-7.25), theirs.nan_to_num(-7.25))
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], value) for key, value in theirs.items())
    return bool(ours == theirs)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The parts of two states that are not equal bit for bit."""
    return [key for key in theirs if not same(ours[key], theirs[key])]


def network_of(base: str = "none", **more: Any) -> NetworkConfig:
    return NetworkConfig(**{"hidden": (8,), "grid_size": 3, "base": base, "mlp_width": 20} | more)


CASES = (
    [(learner, network_of(base), "kan", {}) for learner in (*DESCENDING, *MORE) for base in ("none", "means", "lda")]
    + [(learner, network_of(), "mlp", {}) for learner in (*DESCENDING, *MORE)]
    + [(learner, network_of(hidden=()), "random_relu", {}) for learner in DESCENDING]
    + [(learner, network_of(), "kan", SGD) for learner in DESCENDING]
    + [  # labels of the added task that were announced before
        (learner, network_of(hidden=() if learner.closed_form else (8,)), "kan", {"num_labels": 8})
        for learner in (*EVERY_LEARNER, *MORE)
    ]
    + [
        (learner, network_of(hidden=(), basis=basis, mixing=mixing), kind, {})
        for learner in EVERY_LEARNER
        if learner.closed_form
        for kind, basis, mixing in (
            ("kan", "spline", 0),
            ("kan", "quadratic", 40),
            ("kan", "pspline", 12),
            *([("kan", "auto", 12)] if learner.gives_left_out else []),
            ("random_relu", "spline", 0),
            ("linear", "spline", 0),
        )
    ]
    + [
        (FinetuneConfig(), network_of(scaling="first_task", zero_start=True, centred=True), "kan", {}),
        (ReplayConfig(memory=40), network_of(shared=True, mixing=30), "kan", {}),
        (JointConfig(), network_of(base="means", shared=True, scaling="first_task"), "mlp", {}),
    ]
)


@pytest.mark.parametrize(("learner", "network", "kind", "train"), CASES, ids=repr)
def test_grown_sequence_equals_one_known_from_the_start(digits, learner, network, kind, train) -> None:
    """Promise: a grown sequence ends like one that was known from the start, so that it can be grown again."""
    parent = finished(begun(sequence(digits, 3, SHUFFLED), learner, network, kind, **train))
    grown = begun(sequence(digits, 4, SHUFFLED), learner, network, kind, **train)
    grown.load_state_dict(saved(parent))
    assert grown.position.task == 3
    whole = begun(sequence(digits, 4, SHUFFLED), learner, network, kind, **train)
    assert differing(finished(grown).state_dict(), finished(whole).state_dict()) == []


@pytest.mark.parametrize("learner", [learner for learner in EVERY_LEARNER if learner != JointConfig()], ids=repr)
def test_an_added_task_reads_no_train_row_of_an_earlier_one(digits, learner) -> None:
    network = network_of(hidden=() if learner.closed_form else (8,))
    state = saved(finished(begun(sequence(digits, 3), learner, network, "kan")))
    tasks = sequence(digits, 4)
    grown = begun(tasks, learner, network, "kan")
    read: set[tuple[str, str]] = set()
    for task in tasks:
        _record(task, read)
    grown.load_state_dict(state)
    grown.run()
    assert {name for name, split in read if split == "train"} == {tasks[3].name}
    assert {name for name, split in read if split == "test"} == {task.name for task in tasks}


def _record(task: TensorRows, read: set[tuple[str, str]]) -> None:
    take = task.take

    def recorded(split: str, positions: Tensor) -> Batch:
        read.add((task.name, split))
        return take(split, positions)

    task.take = recorded  # type: ignore[method-assign]


def test_labels_that_no_row_has_get_outputs_in_the_end(digits) -> None:
    trainer = finished(begun(sequence(digits, 2), FinetuneConfig(), network_of(base="means"), "kan", num_labels=7))
    judge_NC, small_NC = trainer.collaborator(digits[0].take("test", torch.arange(9)).features)
    assert judge_NC.shape == small_NC.shape == (9, 7)
    assert (judge_NC[:, 4:] < -1e3).all()  # without a row there is no mean: they are never the answer


def test_a_sequence_that_cannot_grow_says_why(digits) -> None:
    four = sequence(digits, 4)
    three = four[:3]

    def make(tasks: Sequence[TensorRows], mask_unseen: bool = True) -> SequenceTrainer:
        return begun(tasks, FinetuneConfig(), network_of(), "kan", num_labels=8, mask_unseen=mask_unseen)

    with pytest.raises(ConfigError, match="mask_unseen"):
        make(four, mask_unseen=False).load_state_dict(saved(finished(make(three, mask_unseen=False))))
    with pytest.raises(ArtefactError, match="finish them"):
        make(four).load_state_dict(saved(make(three)))
    with pytest.raises(ArtefactError, match="not of"):
        make(four[1:]).load_state_dict(saved(finished(make(three))))

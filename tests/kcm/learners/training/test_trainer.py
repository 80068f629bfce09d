"""A trainer is the same for any number of ranks and any interruption, and its learners differ as they should."""

import functools

import numpy as np
import pytest
import torch

from examples.learners.der import DerConfig
from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from examples.learners.si import SiConfig
from kcm.bundle.sealed_folder import SealedFolder, sealing, write_state
from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ArtefactError, ConfigError
from kcm.learners import LearnerConfig
from kcm.learners.bounds import FinetuneConfig, JointConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.metrics.continual import summarise
from tests.kcm.learners.tasks import assert_close, part_of, rows_of

LEARNERS = [
    FinetuneConfig(),
    JointConfig(),
    ReplayConfig(memory=40, batch_size=17),
    ReplayConfig(memory=40, batch_size=17, margin=2.0),
    DerConfig(memory=40, batch_size=17),
    LwfConfig(),
    EwcConfig(),
    EwcConfig(fisher="empirical", online=True, decay=0.9),
    SiConfig(),
]


def final_accuracy(trainer: SequenceTrainer) -> float:
    trainer.run()
    return float(np.mean(trainer.accuracy["small"][-1]))


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_joint_beats_replay_beats_finetuning(make_trainer, digits, kind) -> None:
    finetune, replay, joint = (
        final_accuracy(make_trainer(digits, learner, kind=kind))
        for learner in (FinetuneConfig(), ReplayConfig(memory=60), JointConfig())
    )
    assert finetune < 0.35  # classes of the last task alone
    assert replay > finetune + 0.2
    assert joint > 0.9
    assert joint > replay


ON_A_BASE = NetworkConfig(hidden=(), base="lda", zero_start=True)
RUNS = [(learner, {}) for learner in LEARNERS]
RUNS += [(learner, {"network": ON_A_BASE}) for learner in LEARNERS]
RUNS += [(DerConfig(memory=40, batch_size=17), {"mask_unseen": True}), (EwcConfig(), {"mask_unseen": True})]


@pytest.mark.parametrize(("learner", "changes"), RUNS, ids=repr)
def test_a_run_resumed_at_any_step_ends_like_an_undisturbed_one(
    make_trainer, digits, learner, changes, tmp_path
) -> None:
    make = functools.partial(make_trainer, digits[:3], learner, epochs=2, **changes)
    undisturbed = make()
    while not undisturbed.done:
        if undisturbed.position.total in (1, 12, 17, 24, 31):  # 12 steps a task: within each, and just after two
            torch.save(undisturbed.state_dict(), tmp_path / f"{undisturbed.position.total}.pt")
        undisturbed.step()
    saved = sorted(tmp_path.glob("*.pt"))
    assert len(saved) == 5
    for path in saved:
        resumed = make()
        resumed.load_state_dict(torch.load(path, weights_only=True))
        resumed.run()
        assert resumed.accuracy == undisturbed.accuracy
        assert_close(resumed.collaborator.state_dict(), undisturbed.collaborator.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("learner", LEARNERS, ids=repr)
@pytest.mark.parametrize("steps", [1, 7])
def test_the_state_of_a_learner_survives_the_folder_of_a_bundle(make_trainer, digits, learner, steps, tmp_path) -> None:
    trainer = make_trainer(digits[:2], learner, epochs=1)
    for _ in range(steps):
        trainer.step()
    with sealing(tmp_path / "bundle", "manifest.json", 1) as draft:
        write_state(draft / "learner", trainer.learner.state_dict())
    found = SealedFolder(tmp_path / "bundle", "manifest.json", 1).state("learner")
    assert_close(found, trainer.learner.state_dict(), atol=0, rtol=0)


def test_a_state_of_other_tasks_is_refused(make_trainer, digits) -> None:
    state = make_trainer(digits[:2], FinetuneConfig()).state_dict()
    with pytest.raises(ArtefactError, match=r"digits-0.*digits-1"):
        make_trainer(digits[1:3], FinetuneConfig()).load_state_dict(state)


def test_a_task_without_test_rows_is_learned_and_not_measured(make_trainer, digits) -> None:
    trainer = make_trainer([part_of(digits[0], "empty", range(3), 0), digits[1]], FinetuneConfig())
    trainer.run()
    assert [row[0] for row in trainer.accuracy["judge"]] == [None, None]
    assert trainer.accuracy["judge"][1][1] > 0


def test_first_task_freezes_the_normalizer_despite_restarts(make_trainer, digits) -> None:
    network = NetworkConfig(hidden=(8,), grid_size=3, scaling="first_task")
    trainer = make_trainer(digits[:2], JointConfig(), epochs=1, network=network)
    mean = rows_of(digits[:1], "train").features.mean(0)
    trainer.run()
    torch.testing.assert_close(trainer.collaborator.normalizer.mean, mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "learner",
    [
        LwfConfig(strength=0),
        EwcConfig(strength=0),
        EwcConfig(strength=0, fisher="empirical", online=True),
        SiConfig(strength=0),
        DerConfig(memory=40, alpha=0, beta=0),
        ReplayConfig(memory=0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shared", [False, True])
def test_weight_zero_is_finetuning_and_others_are_not(make_trainer, digits, learner, shared) -> None:
    network = NetworkConfig(hidden=(8,), grid_size=3, shared=shared)

    def weights(learner: LearnerConfig) -> torch.Tensor:
        trainer = make_trainer(digits[:3], learner, epochs=1, network=network)
        trainer.run()
        return torch.cat([p.detach().flatten() for p in trainer.collaborator.parameters()])

    finetuned = weights(FinetuneConfig())
    assert torch.equal(weights(learner), finetuned)
    switched_on = type(learner)(**({"memory": 40} if "memory" in type(learner).model_fields else {}))
    assert not torch.allclose(weights(switched_on), finetuned, atol=1e-4)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_no_teacher_makes_judge_and_small_equal(make_trainer, digits, kind) -> None:
    for large_weight, num_networks in ((0.0, 1), (1.0, 2)):
        trainer = make_trainer(digits[:2], FinetuneConfig(), kind=kind, epochs=2)
        trainer.distill = DistillConfig(large_weight=large_weight, judge_weight=0.5, keep_confidence=0.3)
        trainer.run()
        assert len(trainer.collaborator.merged().networks) == num_networks


@pytest.mark.parametrize("learner", [each for each in LEARNERS if each != JointConfig()], ids=repr)
def test_a_long_sequence_needs_no_more_state_than_a_short_one(make_trainer, digits, learner) -> None:
    tasks = [part_of(digits[number % 5], f"task-{number}", range(12), 12) for number in range(16)]
    for number, task in enumerate(tasks):
        task.ids("train")[:] = [f"{number}-{row}" for row in range(12)]
    trainer, sizes = make_trainer(tasks, learner, epochs=1), []
    while not trainer.done:
        if trainer.step():
            sizes.append(_size(trainer.learner.state_dict()))
    assert len(set(sizes[5:])) == 1
    assert sizes[-1] <= 4 * sum(p.numel() for p in trainer.collaborator.parameters())


def _size(state) -> int:
    """Numbers and names in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    if isinstance(state, dict | list):
        return sum(_size(part) for part in (state.values() if isinstance(state, dict) else state))
    return 1


@pytest.mark.parametrize("learner", [FinetuneConfig(), JointConfig(), DerConfig(memory=40)], ids=repr)
def test_masked_labels_are_not_trained_answered_or_measured(make_trainer, digits, learner) -> None:
    trainer = make_trainer(digits, learner, epochs=1, mask_unseen=True, network=NetworkConfig(hidden=()))
    assert trainer.baseline["small"] == [None] * 5
    for _ in range(trainer.num_steps(0) - 1):
        trainer.step()
    assert trainer.collaborator.num_labels == len(trainer.collaborator.judge.layers[0].weight) == 2
    assert trainer.evaluate(num_learned=5)["small"][1:] == [0.0] * 4  # none of their labels is ever answered
    trainer.run()
    matrix = trainer.accuracy["small"]
    assert [[value is None for value in row] for row in matrix] == [[j > i for j in range(5)] for i in range(5)]
    measured = summarise(matrix, trainer.baseline["small"])
    assert measured["fwt"] is None
    assert measured["average_accuracy"] == pytest.approx(np.mean(matrix[-1]))


def test_a_memory_without_room_for_every_label_is_refused(make_trainer, digits) -> None:
    with pytest.raises(ConfigError, match=r"memory = 9 .* labels, 10"):
        make_trainer(digits, ReplayConfig(memory=9))
    make_trainer(digits, ReplayConfig(memory=10))

"""Labels come with tasks, and outputs with labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners.training.labels import SequenceLabels, labels_of


class Task:
    """A task whose train rows have these labels."""

    name = "task"

    def __init__(self, *labels: int) -> None:
        self._labels = labels

    def label_counts(self, split: str) -> Mapping[int, int]:
        return dict.fromkeys(self._labels, 3)


LABELS = SequenceLabels([Task(1, UNLABELLED), Task(0, 1), Task(3)], 5)  # nobody gives label 2 or 4


def test_labels_of_a_task_are_those_that_somebody_gave() -> None:
    assert labels_of(Task(4, UNLABELLED, 2)) == [2, 4]


def test_a_task_has_labels_of_its_own_and_has_seen_those_before() -> None:
    seen = [LABELS.classes(task, 5).seen_C.nonzero()[:, 0].tolist() for task in (-1, 0, 1, 2, 3)]
    assert seen == [[], [1], [0, 1], [0, 1, 3], [0, 1, 3]]
    current = [LABELS.classes(task, 5).current_C.nonzero()[:, 0].tolist() for task in (-1, 0, 1, 2, 3)]
    assert current == [[], [1], [0, 1], [3], []]
    assert LABELS.classes(0, 2).seen_C.tolist() == [False, True]


def test_outputs_come_up_to_the_last_label_seen_and_only_new_ones_start_anew() -> None:
    collaborator = Collaborator(3, 5, NetworkConfig(hidden=()), "mlp", 0)
    collaborator.resize(0)
    LABELS.append_outputs(collaborator, 0)
    assert collaborator.num_labels == 2
    known = {name: tensor.clone() for name, tensor in collaborator.state_dict().items()}
    with torch.no_grad():
        for parameter in collaborator.parameters():
            parameter.add_(1.0)
    moved = {name: tensor.clone() for name, tensor in collaborator.state_dict().items()}
    LABELS.append_outputs(collaborator, 1)  # label 0 is new, label 1 is not
    for name in collaborator.output_names:
        now = collaborator.state_dict()[name]
        assert torch.equal(now[0], known[name][0])
        assert torch.equal(now[1], moved[name][1])
    LABELS.append_outputs(collaborator, 2)
    assert collaborator.num_labels == 4

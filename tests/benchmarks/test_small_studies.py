"""The pieces of three small benchmarks: streams of few inputs, deletion and insertion, rows and targets to distil."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.distillation import batch as large_batch
from benchmarks.distillation import everywhere, taught
from benchmarks.faithfulness import spread
from benchmarks.kan_local import KINDS, STREAMS, shapes
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.kan import num_parameters
from kcm.learners.analytic import mixed_targets


@pytest.mark.parametrize("name", ["peaks, 1", "peaks, 32", "Feynman, 3", "wine", "digits"])
def test_networks_of_a_stream_have_equal_sizes(name: str) -> None:
    """Both shapes of KAN and MLP are within a tenth of each other; a linear map has one shape."""
    rows = STREAMS[name](0)
    sizes = {
        kind: [
            num_parameters(Collaborator(rows.num_inputs, rows.num_labels, network, kind, 0))
            for network in shapes(kind, rows.num_inputs, rows.num_labels)
        ]
        for kind in KINDS
    }
    both = sizes["kan"] + sizes["mlp"]
    assert max(both) < 1.1 * min(both)
    assert len(sizes["linear"]) == 1


def test_peaks_come_range_by_range() -> None:
    """Ranges do not overlap, and every task has all three labels in equal numbers."""
    tasks = STREAMS["peaks, 4"](0).tasks
    ends = [(train.features.min(0).values, train.features.max(0).values) for train, _ in tasks]
    assert all((high < low).all() for (_, high), (low, _) in pairwise(ends))
    for train, test in tasks:
        counts = torch.bincount(torch.cat([train.labels, test.labels]))
        assert counts.max() - counts.min() <= 1


def test_a_formula_has_its_own_labels() -> None:
    """Formulas share no label, so the labels of a row's task can restrict its answer."""
    labels = [set(train.labels.tolist()) for train, _ in STREAMS["Feynman, 2"](0).tasks]
    assert labels == [set(range(4 * task, 4 * task + 4)) for task in range(4)]


def test_a_true_order_spreads_and_its_reverse_does_not() -> None:
    """Of a linear model the order by contribution is best; reversed, it is as far below zero."""
    weight_I = np.array([3.0, -2.0, 1.0, 0.5, -0.1, 0.2, -0.4, 0.3, 0.05, -0.6])

    def scores(masks_MI: np.ndarray) -> np.ndarray:
        logit_M = masks_MI @ weight_I
        return np.stack([np.zeros_like(logit_M), logit_M], 1)

    added_IC = np.stack([-weight_I, weight_I], 1)
    orders = {"true": added_IC, "reversed": -added_IC}
    figures = spread({"model": scores}, lambda masks_MI: masks_MI.astype(np.float32), orders)["model"]
    assert figures["true"] > 0.3
    assert figures["reversed"] == pytest.approx(-figures["true"])


def test_targets_differ_only_if_the_large_model_is_wrong() -> None:
    """Teaching everywhere and teaching in agreement are the same for a large model that is right and sure."""
    labels_NC = torch.eye(3)[[0, 1, 2]]
    large_NC = torch.tensor([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [torch.nan] * 3])
    one, other = (targets(labels_NC, large_NC, DistillConfig()) for targets in (everywhere, mixed_targets))
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert torch.allclose(one[1], torch.tensor([0.35, 0.6, 0.05]))
    assert torch.equal(other[1], labels_NC[1])


def test_lines_of_rows() -> None:
    """Labels alone drop rows, answers alone replace labels and drop rows without one, both hide labels."""
    rows = large_batch(np.zeros((4, 1)), np.array([0, 1, 2, 0]), np.eye(3)[[0, 2, 2, 1]])
    rows.large_probabilities[3] = torch.nan
    assert taught(rows, "labelled", 2).labels.tolist() == [0, 1]
    assert taught(rows, "answers", 2).labels.tolist() == [0, 2, 2]
    assert taught(rows, "all", 2).labels.tolist() == [0, 1, UNLABELLED, UNLABELLED]

"""Our learners and metrics beside those of avalanche-lib, on scikit-learn's digits in five tasks of two classes.

    pip install avalanche-lib==0.6.0
    python benchmarks/learner_agreement.py [--num-seeds 5] [--json benchmarks/results/learner_agreement.json]

Both sides train the same MLP from the same weights on the same rows with AdamW and a cosine per task; rows come in
other orders, and other rows are remembered, so that final accuracies agree in distribution only. Avalanche's LwF leaves
out the factor T^2, so that its alpha is our strength times T^2; its DER++ draws once for both terms. `StreamForgetting`
is compared with `forgetting_first` on the accuracies that avalanche itself measured.

ER_ACE stands beside replay with a margin. Its memory holds rows of the present task from its first step on, ours those
of finished tasks: under a margin without end, which is the loss of ER_ACE, nothing then lowers an old label on a new
row. `old rows` is ER_ACE with a memory like ours. What remains: remembered rows see labels not seen yet in avalanche,
and its loss is the mean of two means, which differs from ours in an epoch's last step.

`slda` reads the same features in one pass. Avalanche updates its covariance row by row, about means that still move,
and the first row of a class about zero; it divides by N, not by N - C, and its shrinkage of 1e-4 is absolute, ours
relative to the mean eigenvalue.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Batch, DerConfig, FinetuneConfig, LearnerConfig, LwfConfig, ReplayConfig, SldaConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import Trainer
from kcm.metrics.continual import summarise

# Avalanche imports these on its way, and uses none of them here.
for module in ("wandb", "gdown", "GPUtil", "qpsolvers", "torch.utils.tensorboard"):
    sys.modules[module] = MagicMock(__path__=[], __spec__=None)
warnings.simplefilter("ignore")

from avalanche.benchmarks.scenarios.deprecated.generators import tensors_benchmark  # noqa: E402
from avalanche.evaluation.metrics import StreamForgetting, accuracy_metrics  # noqa: E402
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, LwFPlugin, ReplayPlugin  # noqa: E402
from avalanche.training.storage_policy import ClassBalancedBuffer  # noqa: E402
from avalanche.training.supervised import DER, ER_ACE, Naive, StreamingLDA  # noqa: E402

TRAIN = TrainConfig(num_epochs=20, batch_size=32, learning_rate=5e-3, weight_decay=1e-2)
NETWORK = NetworkConfig(hidden=(16,), shared=True)
LINEAR = NetworkConfig(hidden=(), shared=True)  # for what is solved for
MEMORY, DRAW, SHRINKAGE = 50, 32, 1e-4
WITHOUT_END = 1e4  # lowers a logit out of every softmax
OURS: dict[str, LearnerConfig] = {
    "finetune": FinetuneConfig(),
    "replay": ReplayConfig(memory=MEMORY, batch_size=DRAW),
    "margin 4": ReplayConfig(memory=MEMORY, batch_size=DRAW, margin=4.0),
    "margin without end": ReplayConfig(memory=MEMORY, batch_size=DRAW, margin=WITHOUT_END),
    "margin without end, old rows": ReplayConfig(memory=MEMORY, batch_size=DRAW, margin=WITHOUT_END),
    "der": DerConfig(memory=MEMORY, batch_size=DRAW, alpha=0.3, beta=1.0),
    "lwf": LwfConfig(strength=3.0, temperature=2.0),
    "slda": SldaConfig(shrinkage=SHRINKAGE),
}
Splits = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Print the comparison, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "learner", "ours", "avalanche", "difference (95% interval)", "forgetting, both formulas", title="Digits"
    )
    result: dict[str, Any] = {}
    for name, config in OURS.items():
        ours, theirs, formulas = zip(*(compare(name, config, seed) for seed in range(options.num_seeds)), strict=True)
        result[name] = compared(np.array(ours), np.array(theirs), formulas)
        row = result[name]
        low, high = row["difference_interval"]
        table.add_row(
            name,
            f"{row['ours']:.3f}",
            f"{row['avalanche']:.3f}",
            f"{row['difference']:+.3f} ({low:+.3f}, {high:+.3f})",
            f"differ by at most {row['largest_forgetting_difference']:.1e}",
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def compared(ours: np.ndarray, theirs: np.ndarray, formulas: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    """Mean accuracies, their paired difference with a t interval, and how far the two forgetting formulas differ."""
    difference = ours - theirs
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    return {
        "num_seeds": len(ours),
        "ours": float(ours.mean()),
        "avalanche": float(theirs.mean()),
        "difference": float(difference.mean()),
        "difference_interval": [float(difference.mean() - half), float(difference.mean() + half)],
        "largest_forgetting_difference": max(abs(first - second) for first, second in formulas),
    }


def compare(name: str, config: LearnerConfig, seed: int) -> tuple[float, float, tuple[float, float]]:
    """Average accuracy after the last task, ours and theirs; and their forgetting by their formula and by ours."""
    train, test = digits(seed)
    learner = config.build(seed)
    network, kind = (LINEAR, "linear") if learner.closed_form else (NETWORK, "mlp")
    collaborator = Collaborator(64, 10, network, kind, seed)
    model = deepcopy(collaborator.judge)
    tasks = [
        TensorRows(f"task-{number}", {"train": rows(number, *train[number]), "test": rows(number, *test[number])})
        for number in range(5)
    ]
    trainer = Trainer(collaborator, learner, tasks, TRAIN, DistillConfig(), seed=seed)
    trainer.run()
    torch.manual_seed(seed)
    matrix, forgetting = avalanche(name, model, train, test)
    ours = summarise(matrix)["forgetting_first"]
    assert ours is not None
    return summarise(trainer.accuracy["small"])["average_accuracy"] or 0.0, float(matrix[-1].mean()), (forgetting, ours)


def digits(seed: int) -> tuple[Splits, Splits]:
    """Train and test rows per task, as unit vectors times 8: what the collaborator makes of any features."""
    features, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    features, labels = nn.functional.normalize(features[order].float()) * 8, labels[order]
    train, test = [], []
    for task in range(5):
        chosen = (labels // 2 == task).nonzero()[:, 0]
        cut = len(chosen) * 3 // 4
        for split, part in ((train, chosen[:cut]), (test, chosen[cut:])):
            split.append((features[part], labels[part]))
    return train, test


def rows(task: int, features_ND: Tensor, labels_N: Tensor) -> tuple[list[str], Batch]:
    """A split as a trainer reads it."""
    count = len(labels_N)
    ids = [f"{task}-{row}" for row in range(count)]
    return ids, Batch(features_ND, labels_N, torch.full((count, 10), torch.nan), torch.ones(count))


def avalanche(name: str, model: nn.Module, train: Splits, test: Splits) -> tuple[np.ndarray, float]:
    """R matrix and StreamForgetting after the last task, of avalanche's learner `name`."""
    benchmark = tensors_benchmark(
        train_tensors=train, test_tensors=test, task_labels=[0] * 5, complete_test_set_only=False
    )
    forgetting = StreamForgetting()
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True), forgetting, loggers=[])
    optimizer = torch.optim.AdamW(model.parameters(), lr=TRAIN.learning_rate, weight_decay=TRAIN.weight_decay)
    steps = TRAIN.num_epochs * -(-len(train[0][0]) // TRAIN.batch_size)
    cosine = LRSchedulerPlugin(
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), step_granularity="iteration"
    )
    shared = {
        "model": model,
        "optimizer": optimizer,
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": TRAIN.batch_size,
        "train_epochs": TRAIN.num_epochs,
        "eval_mb_size": 512,
        "evaluator": evaluator,
    }
    strategy = LEARNERS[name](shared, cosine)
    matrix = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        found = strategy.eval(benchmark.test_stream)
        key = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{:03d}"
        matrix.append([found[key.format(task)] for task in range(5)])
    return np.array(matrix), float(forgetting.result())


class OldRows(ClassBalancedBuffer):  # type: ignore[misc]
    """A memory that takes the rows of a task when the next one begins."""

    waiting: Any = None

    def update(self, strategy: Any, **_: Any) -> None:
        """Take what waits, and let the rows of the present task wait."""
        if self.waiting is not None:
            self.update_from_dataset(self.waiting)
        self.waiting = strategy.experience.dataset


def ace(shared: dict[str, Any], cosine: LRSchedulerPlugin, memory: ClassBalancedBuffer | None = None) -> ER_ACE:
    """ER_ACE, with its own memory or the one given."""
    strategy = ER_ACE(**shared, plugins=[cosine], mem_size=MEMORY, batch_size_mem=DRAW)
    if memory is not None:
        strategy.storage_policy = memory
    return strategy


LEARNERS: dict[str, Callable[[dict[str, Any], LRSchedulerPlugin], Any]] = {
    "finetune": lambda shared, cosine: Naive(**shared, plugins=[cosine]),
    "replay": lambda shared, cosine: Naive(
        **shared,
        plugins=[
            cosine,
            ReplayPlugin(
                MEMORY, batch_size=TRAIN.batch_size, batch_size_mem=DRAW, storage_policy=ClassBalancedBuffer(MEMORY)
            ),
        ],
    ),
    "margin 4": lambda shared, cosine: ace(shared, cosine),
    "margin without end": lambda shared, cosine: ace(shared, cosine),
    "margin without end, old rows": lambda shared, cosine: ace(shared, cosine, OldRows(MEMORY)),
    "der": lambda shared, cosine: DER(
        **shared, plugins=[cosine], mem_size=MEMORY, batch_size_mem=DRAW, alpha=0.3, beta=1.0
    ),
    "lwf": lambda shared, cosine: Naive(**shared, plugins=[cosine, LwFPlugin(alpha=3.0 * 2.0**2, temperature=2.0)]),
    "slda": lambda shared, _: StreamingLDA(
        slda_model=nn.Identity(),
        input_size=64,
        num_classes=10,
        shrinkage_param=SHRINKAGE,
        **{name: value for name, value in shared.items() if name not in ("model", "optimizer", "train_epochs")},
    ),
}

if __name__ == "__main__":
    main()

"""The trainer's learners end where a plain torch loop of the same method ends, on digits, with the same MLP.

The loop shares no code with the trainer: it draws rows, and chooses what to remember, with torch's own generator. So
the two agree in distribution, and are compared by the mean over seeds.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import DerConfig, LwfConfig, ReplayConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.trainer import Trainer

EPOCHS, BATCH, RATE, DECAY = 6, 50, 1e-2, 1e-2
SGD_RATE = 0.05
MEMORY, DRAW = 50, 20
NETWORK = NetworkConfig(hidden=(8,), grid_size=3, shared=True)  # judge and small in one: a plain classifier
TOLERANCE = 0.05


def plain_loop(model: nn.Module, method: str, tasks, seed: int, margin: float | None = None) -> float:
    """Average accuracy after the last task; with a margin by SGD and the asymmetric cross-entropy."""
    torch.manual_seed(seed)
    memory: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    teacher = None
    for number, (x_ND, y_N, _, _) in enumerate(tasks):
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        if margin is not None:
            optimiser = torch.optim.SGD(model.parameters(), lr=SGD_RATE, momentum=0.9)
        steps = EPOCHS * math.ceil(len(x_ND) / BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda s, n=steps: 0.5 * (1 + math.cos(math.pi * s / n))
        )
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x_ND)).split(BATCH):
                x, y = x_ND[rows], y_N[rows]
                if method == "replay" and memory:
                    chosen = torch.randperm(len(memory))[:DRAW]
                    x = torch.cat([x, torch.stack([memory[i][0] for i in chosen])])
                    y = torch.cat([y, torch.stack([memory[i][1] for i in chosen])])
                logits = model(x)
                loss = F.cross_entropy(logits, y)
                if margin is not None and number > 0:
                    seen = logits[:, : 2 * number + 2]
                    lowered = torch.cat([seen[: len(rows), : 2 * number] - margin, seen[: len(rows), 2 * number :]], 1)
                    costs = [
                        F.cross_entropy(part, y[at], reduction="sum")
                        for part, at in ((lowered, slice(len(rows))), (seen[len(rows) :], slice(len(rows), None)))
                    ]
                    loss = (costs[0] + costs[1]) / len(x)
                if method == "der" and memory:
                    first, second = (torch.randperm(len(memory))[:DRAW] for _ in range(2))
                    said = torch.stack([memory[i][2] for i in first])
                    loss = loss + 0.3 * F.mse_loss(model(torch.stack([memory[i][0] for i in first])), said)
                    labels = torch.stack([memory[i][1] for i in second])
                    loss = loss + 1.0 * F.cross_entropy(model(torch.stack([memory[i][0] for i in second])), labels)
                if method == "lwf" and teacher is not None:
                    soft = F.softmax(teacher(x)[:, : 2 * number] / 2, 1).detach()
                    student = F.log_softmax(logits[:, : 2 * number] / 2, 1)
                    loss = loss + 3.0 * 4 * F.kl_div(student, soft, reduction="batchmean")
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            memory += [(x_ND[i], y_N[i], model(x_ND[i])) for i in torch.randperm(len(x_ND))]
        room = MEMORY // (2 * (number + 1))  # rows for each label so far
        memory = [row for label in range(10) for row in [row for row in memory if row[1] == label][:room]]
    with torch.no_grad():
        right = [(model(x_ND).argmax(1) == y_N).float().mean() for _, _, x_ND, y_N in tasks]
    return float(torch.stack(right).mean())


@pytest.mark.parametrize(
    "learner",
    [
        ReplayConfig(memory=MEMORY, batch_size=DRAW),
        ReplayConfig(memory=MEMORY, batch_size=DRAW, margin=1.0),
        DerConfig(memory=MEMORY, batch_size=DRAW, alpha=0.3, beta=1.0),
        LwfConfig(strength=3.0, temperature=2.0),
    ],
    ids=lambda learner: learner.name if learner.margin is None else "ace",
)
def test_average_accuracy_is_that_of_a_plain_loop(digits, learner) -> None:
    differences = []
    for seed in range(3):
        collaborator = Collaborator(64, 10, NETWORK, "mlp", seed)
        plain = []
        for task in digits:
            train, test = (task.take(split, torch.arange(task.num_rows(split))) for split in ("train", "test"))
            scaled = [collaborator.normalizer(batch.features) for batch in (train, test)]
            plain.append((scaled[0], train.labels, scaled[1], test.labels))
        expected = plain_loop(copy.deepcopy(collaborator.judge), learner.name, plain, seed, learner.margin)
        train = TrainConfig(num_epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, weight_decay=DECAY)
        if learner.margin is not None:
            train = train.model_copy(update={"optimizer": "sgd", "sgd_rate": SGD_RATE})
        trainer = Trainer(collaborator, learner.build(seed), digits, train, DistillConfig(), seed=seed)
        trainer.run()
        differences.append(sum(trainer.accuracy["small"][-1]) / 5 - expected)
    assert abs(sum(differences) / len(differences)) < TOLERANCE, differences

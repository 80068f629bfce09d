"""How many workers a training by steps takes: they share the rows of a step, and wait for each other's gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kcm.kan.mlp import num_parameters
from pipelines.cluster.config import ClusterConfig
from pipelines.training.worker import TrainerPlan

# CPU seconds of a row, forwards and backwards, in networks of 900 to a million parameters, of an Intel Xeon with AMX:
# 1.6 us at 900, 3.5 at 9,500, 19 at 112,000, 61 and 75 at a million.
ROW_S, ROW_PARAMETER_S = 2e-6, 1e-10
# gloo's all-reduce between two hosts that are 0.25 ms apart: 0.8 ms for 7 kB, 5.7 ms for 402 kB.
ALL_REDUCE_S, BYTE_S = 0.8e-3, 12e-9


@dataclass(frozen=True)
class StepSize:
    """What decides how long a step takes, but for what every worker does alike."""

    num_rows: int
    num_parameters: int

    def seconds(self, workers: int) -> float:
        """A worker's rows, and the sum of all gradients, for which 2 (W - 1) / W of their bytes leave each worker."""
        computed = self.num_rows / workers * (ROW_S + ROW_PARAMETER_S * self.num_parameters)
        sent = 4 * self.num_parameters * 2 * (workers - 1) / workers
        return computed + ALL_REDUCE_S * math.log2(workers) + BYTE_S * sent


def step_sizes(plan: TrainerPlan) -> list[StepSize]:
    """The steps of each collaborator that is not solved in closed form."""
    learners = {name: plan.learner(name) for name in plan.config.collaborators}
    train = plan.config.train
    return [
        StepSize(learner.schedule(train.num_epochs, train.batch_size)[1], num_parameters(plan.collaborator(name)))
        for name, learner in learners.items()
        if not learner.closed_form
    ]


def useful_workers(steps: Sequence[StepSize], cluster: ClusterConfig) -> tuple[int | tuple[int, int], str | None]:
    """Of `cluster.num_workers` those that make steps faster, and a line on the others; none are fewer than the fewest.

    Solved collaborators have no such steps, and nothing of this was measured on GPUs: they take all workers.
    """
    given = cluster.num_workers
    most = given if isinstance(given, int) else given[1]
    fewest = 1 if isinstance(given, int) else given[0]
    if not steps or cluster.use_gpu:
        return given, None
    seconds = {workers: sum(step.seconds(workers) for step in steps) for workers in range(fewest, most + 1)}
    best = min(seconds, key=lambda workers: seconds[workers])
    useful = best if isinstance(given, int) or best == fewest else (fewest, best)
    if best == most:
        return useful, None
    times = " and ".join(f"{1e3 * seconds[workers]:.1f} ms a step with {workers}" for workers in (most, best))
    return useful, f"train: {most} workers would be slower than {best}, using {best} (an estimated {times})"

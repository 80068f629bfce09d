"""What a finished task offers to a learner's memory, each row of it on one rank at most."""

from __future__ import annotations

from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Learner
from kcm.learners.ranks import Ranks
from kcm.learners.training.order import ROWS_PER_GROUP
from kcm.learners.training.stream import TaskRows

_ROWS_SKETCHED = 16 * ROWS_PER_GROUP  # of which ids and labels are held at a time


def sketch(learner: Learner, rows: TaskRows, task: int, ranks: Ranks) -> tuple[list[str], list[int]]:
    """Ids and positions of the train rows of this rank that could enter the memory.

    Rows are dealt out some blocks at a time. The sketch of some rows joins that of the rows before: it is never larger
    than the memory. Merged over ranks, it is the same for any number of them.
    """
    held: list[tuple[str, int, int]] = []  # id, label and position
    num_rows, size = rows.num_rows("train"), _ROWS_SKETCHED
    for start in range(ranks.rank * size, num_rows, ranks.world_size * size):
        stop = min(start + size, num_rows)
        found = zip(*rows.ids_and_labels("train", start, stop), range(start, stop), strict=True)
        held += [row for row in found if row[1] != UNLABELLED]
        chosen = learner.candidates([row[0] for row in held], [row[1] for row in held], task)
        held = [held[index] for index in chosen]
    return [row[0] for row in held], [row[2] for row in held]

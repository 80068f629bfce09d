"""A caller whose labels disagree with the rest is set aside, and nobody else."""

import numpy as np
import pyarrow as pa

from pipelines.loop.window.labellers import outliers

KNOWN = ("pay", "send", "refund")


def labels(callers: dict[str, tuple[int, float]], seed: int = 0, wrong: str = "send") -> pa.Table:
    """Decisions answered `pay`, of which a caller labels so many, and a share of them otherwise."""
    rng = np.random.default_rng(seed)
    rows = [
        {"caller": caller, "label": wrong if rng.random() < share else "pay", "large_label": "pay"}
        for caller, (count, share) in callers.items()
        for _ in range(count)
    ]
    return pa.Table.from_pylist([rows[place] for place in rng.permutation(len(rows))])


def test_caller_against_all_others_is_set_aside() -> None:
    """Promise: who labels against all others is set aside and the others are not."""
    found = outliers(labels({"good": (200, 0.05), "fair": (200, 0.1), "poisoner": (60, 0.9)}), KNOWN)
    assert list(found) == ["poisoner"]
    assert "of 60 labels differ" in found["poisoner"]


def test_equal_callers_are_set_aside_at_most_as_promised() -> None:
    """Promise: callers who are alike are set aside no more often than promised."""
    alike = dict.fromkeys("abcd", (100, 0.15))
    assert sum(bool(outliers(labels(alike, seed), KNOWN)) for seed in range(200)) <= 10


def test_new_class_labels_and_single_callers_are_no_evidence() -> None:
    """Promise: labels of new classes speak against nobody nor does one caller alone."""
    table = labels({"good": (200, 0.05), "finder": (60, 0.9)}, wrong="new class")
    assert outliers(table, KNOWN) == {}
    assert outliers(labels({"only": (200, 0.9)}), KNOWN) == {}

"""Every answer of the large model is pooled for training; labels that people volunteer train and do nothing else."""

from typing import Any

import pyarrow as pa
import pytest

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from pipelines.loop.window.task import task_of
from pipelines.store.sequence import Names
from tests.pipelines.loop.logged import MadeLog, decisions

NAMES = Names(("old", "new"), ("bad", "good"), "none of these")


def window(purpose: str, **columns: Any) -> pa.Table:
    rows = decisions(["a text"], ["good"], share=1.0, **columns)
    return MadeLog(rows).table.append_column("purpose", pa.array([purpose], pa.string()))


def chosen(split: str, **columns: Any) -> list[tuple[str, int]]:
    """Ids and labels of the rows of a split that one decision of a unit with this purpose gives."""
    rows = task_of(window(split, **columns), "new", NAMES).splits[split]
    return list(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))


OUTSIDE = "none of these"
FINAL = ("validate", "test")


@pytest.mark.parametrize(
    ("splits", "columns", "labels"),
    [
        (["train"], {}, [UNLABELLED]),  # an answer of the large model teaches without being a label
        (["train"], {"label": "bad"}, [0]),  # a volunteered label trains, with or without an answer
        (["train"], {"label": "bad", "large_label": None}, [0]),
        (["train"], {"large_label": None}, []),
        (FINAL, {"label": "bad"}, [1]),  # and measures nothing
        (FINAL, {"label": "bad", "large_label": None}, []),
        (["test"], {"large_label": OUTSIDE}, [OUT_OF_SCOPE]),  # measures, and is no label to train on
        (["train"], {"label": OUTSIDE}, [UNLABELLED]),
        (["test"], {"large_label": "perhaps"}, []),
    ],
)
def test_labels_of_rows_by_what_is_known_of_a_decision(splits: Any, columns: Any, labels: list[int]) -> None:
    for split in splits:
        assert chosen(split, **columns) == [("r1/0", label) for label in labels]


def test_closed_form_learns_answers_after_people_labels() -> None:
    """Promise: a learner that reads labels alone learns from every answer, and a person overrules it."""

    def taught(**columns: Any) -> list[int]:
        return task_of(window("train", **columns), "new", NAMES, taught=True).splits["train"]["label"].to_pylist()

    assert list(taught()) == [1]
    assert list(taught(label="bad")) == [0]
    assert list(taught(large_label=OUTSIDE)) == [UNLABELLED]


def test_certify_decision_never_becomes_a_row() -> None:
    """Promise: a certify decision becomes no row whatever is known of it."""
    task = task_of(window("certify", label="bad"), "new", NAMES)
    assert not len(task.rows)


def test_rows_that_are_out_of_scope_lie_after_the_others() -> None:
    rows = decisions(["a", "b", "c", "d"], ["none of these", "good", "none of these", "bad"], share=1.0)
    table = MadeLog(rows).table.append_column("purpose", pa.array(["test"] * 4, pa.string()))
    test = task_of(table, "new", NAMES).splits["test"].to_pydict()
    assert test["label"] == [1, 0, OUT_OF_SCOPE, OUT_OF_SCOPE]
    assert test["text"] == ["b", "d", "a", "c"]

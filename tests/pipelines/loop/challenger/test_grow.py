"""Every answer of the large model is pooled for training; labels that people volunteer train and do nothing else."""

from typing import Any

import pyarrow as pa

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from pipelines.loop.challenger.grow import task_of
from pipelines.store.sequence import Names
from tests.pipelines.loop.logged import MadeLog, decisions

NAMES = Names(("old", "new"), ("bad", "good"), "none of these")


def window(purpose: str, **columns: Any) -> pa.Table:
    rows = decisions(["a text"], ["good"], share=1.0, **columns)
    return MadeLog(rows).table.append_column("purpose", pa.array([purpose], pa.string()))


def chosen(purpose: str, split: str, **columns: Any) -> list[tuple[str, int]]:
    """Ids and labels of the rows of a split that one decision of a unit with this purpose gives."""
    rows = task_of(window(purpose, **columns), "new", NAMES).splits[split]
    return list(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))


def test_large_answer_teaches_without_being_a_label() -> None:
    """Promise: an answer of the large model teaches without being a label."""
    assert chosen("train", "train") == [("r1/0", UNLABELLED)]


def test_closed_form_learns_answers_after_people_labels() -> None:
    """Promise: a learner that reads labels alone learns from every answer, and a person overrules it."""

    def taught(**columns: Any) -> list[int]:
        return task_of(window("train", **columns), "new", NAMES, taught=True).splits["train"]["label"].to_pylist()

    assert list(taught()) == [1]
    assert list(taught(label="bad")) == [0]
    assert list(taught(large_label="none of these")) == [UNLABELLED]


def test_a_volunteered_label_trains_with_or_without_an_answer() -> None:
    assert chosen("train", "train", label="bad") == [("r1/0", 0)]
    assert chosen("train", "train", label="bad", large_label=None) == [("r1/0", 0)]
    assert chosen("train", "train", large_label=None) == []


def test_a_volunteered_label_measures_nothing() -> None:
    for split in ("validate", "test"):
        assert chosen(split, split, label="bad") == [("r1/0", 1)]
        assert chosen(split, split, label="bad", large_label=None) == []


def test_a_label_of_a_person_who_was_asked_is_the_right_one() -> None:
    asked = {"label": "bad", "label_probability": 0.5}
    for split in ("train", "validate", "test"):
        assert chosen(split, split, **asked) == [("r1/0", 0)]


def test_certify_decision_never_becomes_a_row() -> None:
    """Promise: a certify decision becomes no row whatever is known of it."""
    task = task_of(window("certify", label="bad", label_probability=0.5), "new", NAMES)
    assert not len(task.rows)


def test_none_of_these_measures_but_is_no_label_to_train_on() -> None:
    assert chosen("test", "test", large_label="none of these") == [("r1/0", OUT_OF_SCOPE)]
    assert chosen("train", "train", label="none of these") == [("r1/0", UNLABELLED)]


def test_an_answer_outside_the_list_measures_nothing() -> None:
    assert chosen("test", "test", large_label="perhaps") == []


def test_rows_that_are_out_of_scope_lie_after_the_others() -> None:
    rows = decisions(["a", "b", "c", "d"], ["none of these", "good", "none of these", "bad"], share=1.0)
    table = MadeLog(rows).table.append_column("purpose", pa.array(["test"] * 4, pa.string()))
    test = task_of(table, "new", NAMES).splits["test"].to_pydict()
    assert test["label"] == [1, 0, OUT_OF_SCOPE, OUT_OF_SCOPE]
    assert test["text"] == ["b", "d", "a", "c"]

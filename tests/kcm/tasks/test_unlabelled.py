"""Rows that nobody labelled: bad rows, or a pool that joins the train rows and moves nothing else."""

from benchmarks.sequences import TaskSequence
from kcm.inputs.labels import UNLABELLED
from kcm.tasks import SPLITS


def rows_by_id(sequence: TaskSequence) -> dict[str, dict]:
    return {row["id"]: row for number in range(len(sequence.tasks)) for row in sequence.tasks[number].rows.to_pylist()}


def test_they_join_the_train_rows_and_move_no_other_row(write_csv, build, labelled) -> None:
    alone = rows_by_id(build(write_csv(labelled(100, 4), name="data.csv")))
    path = write_csv([*labelled(100, 4), *([f"pool {i}", ""] for i in range(50))], name="data.csv")
    joined = rows_by_id(build(path, unlabelled="keep"))
    pool = [joined.pop(f"data-{101 + i}") for i in range(50)]
    assert joined == alone
    assert {(row["split"], row["label"]) for row in pool} == {("train", UNLABELLED)}


def test_they_belong_to_the_task_that_they_name(write_csv, build, labelled) -> None:
    rows = [(text, label, ["one", "two"][i // 2 % 2]) for i, (text, label) in enumerate(labelled(120, 2))]
    path = write_csv([*rows, *([f"pool {i}", "", "two"] for i in range(9))], ("text", "label", "domain"))
    settings = {"scenario": "domain_incremental", "source": {"task_column": "domain"}, "unlabelled": "keep"}
    one, two = (task.splits["train"]["label"].to_pylist().count(UNLABELLED) for task in build(path, **settings).tasks)
    assert (one, two) == (0, 9)


def test_labelled_or_held_out_texts_are_left_out_and_listed(write_csv, build, labelled) -> None:
    known = labelled(100, 4)
    path = write_csv([*known, *([text, ""] for text, _ in known), ["fresh", ""]])
    sequence = build(path, unlabelled="keep")
    assert next(row for row in rows_by_id(sequence).values() if row["label"] == UNLABELLED)["text"] == "fresh"
    assert len(sequence.bad_rows) == 100
    reasons = {row.reason for row in sequence.bad_rows}
    assert reasons == {"its content is also in a labelled row"} | {
        f"its text or group is also in split {split}" for split in SPLITS if split != "train"
    }


def test_a_test_row_needs_its_label(write_csv, build, labelled) -> None:
    """What a data set hides of its test rows does not make them train rows."""
    rows = [(text, label, "train" if i < 200 else "test") for i, (text, label) in enumerate(labelled(260, 4))]
    path = write_csv([*rows, ["hidden", "", "test"], ["pool", "", "train"]], ("text", "label", "split"))
    sequence = build(path, unlabelled="keep")
    assert [(row.id, row.reason) for row in sequence.bad_rows] == [("data-261", "missing label")]
    assert rows_by_id(sequence)["data-262"]["label"] == UNLABELLED


def test_a_cap_holds_for_them_apart(write_csv, build, labelled) -> None:
    path = write_csv([*labelled(200, 4), *([f"pool {i}", ""] for i in range(200))])
    for task in build(path, unlabelled="keep", max_rows_per_task=40, salt=1).tasks:
        assert len(task.rows) == 80
        assert task.splits["train"]["label"].to_pylist().count(UNLABELLED) == 40

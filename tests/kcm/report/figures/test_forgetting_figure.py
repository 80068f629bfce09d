import pytest

from kcm.report.figures import forgetting

TASKS = ["reviews", "movies", "editorials"]


def test_a_task_goes_from_when_it_was_learned_to_the_end(result, read_drawing) -> None:
    del result["mcm"]
    drawing = read_drawing(forgetting(result, TASKS))
    hollow = list(drawing.marks("kcm hollow"))
    filled = [m for m in drawing.marks("kcm") if m not in hollow]
    learned = [drawing.at("x", float(m.attrib["cx"])) for m in hollow]
    kept = [drawing.at("x", float(m.attrib["cx"])) for m in filled]
    assert learned == pytest.approx([85, 80, 84], abs=0.1)
    assert kept == pytest.approx([81, 79, 84], abs=0.1)
    assert [m.findtext("title") for m in filled] == [
        "reviews, at the end: 81.0%",
        "movies, at the end: 79.0%",
        "editorials, at the end: 84.0%",
    ]


def test_both_collaborators_have_a_lane_of_their_own(result, read_drawing) -> None:
    drawing = read_drawing(forgetting(result, TASKS))
    kcm = [float(line.attrib["y1"]) for line in drawing.lines("kcm whisker")]
    mcm = [float(line.attrib["y1"]) for line in drawing.lines("mcm whisker")]
    assert all(upper + 5 < lower for upper, lower in zip(kcm, mcm, strict=True))


def test_a_task_without_an_accuracy_is_left_out(result, read_drawing) -> None:
    del result["mcm"]
    result["kcm"]["accuracy_matrix"][2][0] = None
    tips = [mark.findtext("title") or "" for mark in read_drawing(forgetting(result, TASKS)).marks("kcm hollow")]
    assert [tip.split(",")[0] for tip in tips] == ["movies", "editorials"]


def test_long_names_are_cut_in_the_drawing(result, read_drawing) -> None:
    drawing = read_drawing(forgetting(result, ["a name that is far too long", "b", "c"]))
    label, _ = drawing.ticks("y")[0]
    assert label.endswith("…")
    assert len(label) <= 16


def test_one_task_cannot_be_forgotten(result) -> None:
    del result["mcm"]
    result["kcm"]["accuracy_matrix"] = [[0.9]]
    assert "Forgetting needs at least two tasks" in forgetting(result, ["reviews"])

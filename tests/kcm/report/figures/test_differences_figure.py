import pytest

from kcm.report.figures import differences


def test_rows_are_the_total_and_then_the_tasks(result, read_drawing) -> None:
    drawing = read_drawing(differences(result))
    assert [label for label, _ in drawing.ticks("y")] == ["All tasks", "reviews", "movies", "editorials"]
    heights = [height for _, height in drawing.ticks("y")]
    assert heights == sorted(heights)


def test_a_difference_stands_at_its_value_within_its_interval(result, read_drawing) -> None:
    result["kcm"]["tasks"]["movies"] |= {"difference": -0.015, "difference_interval": [-0.021, -0.009]}
    drawing = read_drawing(differences(result))
    (mark,) = [m for m in drawing.marks("kcm") if (m.findtext("title") or "").startswith("movies, KCM: −1.5")]
    assert drawing.at("x", float(mark.attrib["cx"])) == pytest.approx(-1.5, abs=0.02)
    whisker = drawing.lines("kcm whisker")[2]
    ends = [drawing.at("x", float(whisker.attrib[end])) for end in ("x1", "x2")]
    assert ends == pytest.approx([-2.1, -0.9], abs=0.02)
    assert whisker.get("y1") == mark.get("cy")


def test_zero_and_the_allowed_loss_are_drawn_even_far_from_the_rest(result, read_drawing) -> None:
    drawing = read_drawing(differences(result))
    (zero,), (allowed,) = drawing.lines("large"), drawing.lines("limit")
    assert drawing.at("x", float(zero.attrib["x1"])) == pytest.approx(0, abs=0.02)
    assert drawing.at("x", float(allowed.attrib["x1"])) == pytest.approx(-2, abs=0.02)
    assert "allowed loss, 2 points" in drawing.legend


def test_a_task_named_like_the_total_has_its_own_row(result, read_drawing) -> None:
    for who in ("kcm", "mcm"):
        result[who]["tasks"] = {"All tasks": result[who]["tasks"]["reviews"]}
    assert len(read_drawing(differences(result)).ticks("y")) == 2


def test_one_collaborator_stands_on_the_line_of_its_task(result, read_drawing) -> None:
    del result["mcm"]
    drawing = read_drawing(differences(result))
    heights = [float(mark.attrib["cy"]) for mark in drawing.marks("kcm")]
    assert heights == pytest.approx([height for _, height in drawing.ticks("y")])


def test_without_a_difference_there_is_nothing_to_draw(result) -> None:
    for who in ("kcm", "mcm"):
        for row in [result[who]["overall"], *result[who]["tasks"].values()]:
            row |= {"difference": None, "difference_interval": None}
    assert "No paired difference was measured." in differences(result)

import pytest

from kcm.report.figures import frontier


def test_deployed_points_stand_at_their_call_rate_and_accuracy(inputs, read_drawing) -> None:
    drawing = read_drawing(frontier(inputs.frontiers, inputs.result))
    assert drawing.mark("KCM deployed") == pytest.approx((29, 91.7), abs=0.2)
    assert drawing.mark("MCM deployed") == pytest.approx((36, 91.3), abs=0.2)


def test_the_curve_runs_through_every_route(inputs, read_drawing) -> None:
    drawing = read_drawing(frontier(inputs.frontiers, inputs.result))
    (curve,) = drawing.lines("mcm")[:1]
    points = [tuple(map(float, point.split(","))) for point in curve.attrib["points"].split()]
    shown = [(drawing.at("x", x), drawing.at("y", y)) for x, y in points]
    expected = [(0, 82), (30, 91.7), (60, 92.2), (100, 92)]
    assert [value for point in shown for value in point] == pytest.approx([v for p in expected for v in p], abs=0.2)


def test_the_large_model_alone_is_a_level(inputs, read_drawing) -> None:
    drawing = read_drawing(frontier(inputs.frontiers, inputs.result))
    (rule,) = drawing.lines("large dashed")
    assert drawing.at("y", float(rule.attrib["y1"])) == pytest.approx(92, abs=0.1)
    assert rule.get("y1") == rule.get("y2")


def test_the_oracle_is_drawn_where_it_is_given(inputs, read_drawing) -> None:
    without = read_drawing(frontier(inputs.frontiers, inputs.result))
    assert "oracle router" not in without.legend
    inputs.result["kcm"]["routing"] |= {"oracle_accuracy": 0.96, "oracle_call_rate": 0.12}
    drawing = read_drawing(frontier(inputs.frontiers, inputs.result))
    assert drawing.mark("oracle router") == pytest.approx((12, 96), abs=0.2)
    assert "oracle router" in drawing.legend


def test_the_interval_of_a_deployed_point_is_drawn(inputs, read_drawing) -> None:
    drawing = read_drawing(frontier(inputs.frontiers, inputs.result))
    (whisker,) = drawing.lines("kcm whisker")
    ends = sorted(drawing.at("y", float(whisker.attrib[end])) for end in ("y1", "y2"))
    assert ends == pytest.approx([90.7, 92.7], abs=0.2)


def test_a_curve_of_infinite_values_only_is_no_frontier(inputs) -> None:
    nothing = {"kcm": {"call_rate": [float("nan")], "accuracy": [0.9], "threshold": [0.0]}}
    assert "No frontier was measured." in frontier(nothing, inputs.result)

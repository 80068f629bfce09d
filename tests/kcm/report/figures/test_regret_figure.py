import pytest

from kcm.report.figures import regret


def test_the_deployed_route_is_the_tested_one_nearest_to_the_threshold(inputs, read_drawing) -> None:
    certificate = inputs.result["certificate"] | {"threshold": 2.9}
    drawing = read_drawing(regret(inputs.certificate_path, certificate))
    assert drawing.mark("deployed") == pytest.approx((50, 0.5), abs=0.05)


def test_the_allowed_loss_is_a_level(inputs, read_drawing) -> None:
    drawing = read_drawing(regret(inputs.certificate_path, inputs.result["certificate"]))
    (limit,) = drawing.lines("limit")
    assert drawing.at("y", float(limit.attrib["y1"])) == pytest.approx(2, abs=0.02)
    assert "allowed loss ε, 2 points" in drawing.legend


def test_without_a_threshold_nothing_is_deployed(inputs, read_drawing) -> None:
    certificate = inputs.result["certificate"] | {"decision": "keep_all", "threshold": None}
    drawing = read_drawing(regret(inputs.certificate_path, certificate))
    assert drawing.marks() == []
    assert "deployed" not in drawing.legend


def test_an_empty_path_is_said(inputs) -> None:
    assert "No threshold was tested." in regret({}, inputs.result["certificate"])

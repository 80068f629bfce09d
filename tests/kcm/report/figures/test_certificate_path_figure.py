import pytest

from kcm.report.figures import certificate_path


def band_start(drawing) -> float:
    (band,) = list(drawing.svg.iter("rect"))
    return drawing.at("x", float(band.attrib["x"]))


def test_p_values_are_drawn_by_powers_of_ten(inputs, read_drawing) -> None:
    drawing = read_drawing(certificate_path(inputs.certificate_path, inputs.result["certificate"]))
    heights = dict(drawing.ticks("y"))
    (curve,) = drawing.lines("kcm")
    points = [tuple(map(float, point.split(","))) for point in curve.attrib["points"].split()]
    assert drawing.at("x", points[-1][0]) == pytest.approx(5, abs=0.05)
    assert points[-1][1] == pytest.approx(heights["0.001"], abs=0.1)
    assert heights["0.01"] - heights["0.1"] == pytest.approx(heights["0.1"] - heights["1"], abs=0.1)


def test_delta_and_the_deployed_threshold_are_drawn(inputs, read_drawing) -> None:
    drawing = read_drawing(certificate_path(inputs.certificate_path, inputs.result["certificate"]))
    heights = dict(drawing.ticks("y"))
    (limit,), (deployed,) = drawing.lines("limit"), drawing.lines("ink")
    assert float(limit.attrib["y1"]) == pytest.approx(heights["0.1"], abs=0.1)
    assert drawing.at("x", float(deployed.attrib["x1"])) == pytest.approx(2, abs=0.05)
    assert {"δ = 0.1", "deployed threshold, 2"} <= set(drawing.legend)


def test_certified_starts_at_the_lowest_certified_threshold_whatever_the_p_values(inputs, read_drawing) -> None:
    certificate = inputs.result["certificate"] | {"certified": {"decision": "threshold", "threshold": 1.5}}
    assert band_start(read_drawing(certificate_path(inputs.certificate_path, certificate))) == pytest.approx(
        1.5, abs=0.05
    )


def test_all_is_certified_where_keeping_all_is(inputs, read_drawing) -> None:
    certificate = inputs.result["certificate"] | {"certified": {"decision": "keep_all", "threshold": None}}
    drawing = read_drawing(certificate_path(inputs.certificate_path, certificate))
    assert band_start(drawing) < 1
    assert "certified" in drawing.legend


def test_nothing_is_shown_as_certified_where_all_is_escalated(inputs, read_drawing) -> None:
    nothing = {"decision": "escalate_all", "threshold": None}
    drawing = read_drawing(
        certificate_path(inputs.certificate_path, inputs.result["certificate"] | nothing | {"certified": nothing})
    )
    assert "certified" not in drawing.legend
    assert not list(drawing.svg.iter("rect"))
    assert not drawing.lines("ink")


def test_a_certificate_by_another_test_says_so(inputs) -> None:
    said = "The certificate itself was tested by net"
    assert said in certificate_path(inputs.certificate_path, inputs.result["certificate"] | {"method": "net"})
    assert said not in certificate_path(inputs.certificate_path, inputs.result["certificate"])


def test_an_empty_path_says_why(inputs) -> None:
    certificate = inputs.result["certificate"] | {"reason": "90 rows are too few"}
    assert "No threshold was tested: 90 rows are too few." in certificate_path({}, certificate)

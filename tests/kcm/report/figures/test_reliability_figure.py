import pytest

from kcm.report.figures import reliability


def test_bins_stand_at_confidence_and_accuracy(inputs, read_drawing) -> None:
    drawing = read_drawing(reliability({"kcm": inputs.reliability["kcm"]}))
    assert drawing.mark("KCM, 10.0% of the rows") == pytest.approx((60, 50), abs=0.3)
    assert drawing.mark("KCM, 90.0% of the rows") == pytest.approx((95, 93), abs=0.3)


def test_an_empty_bin_is_not_drawn(inputs, read_drawing) -> None:
    assert len(read_drawing(reliability(inputs.reliability)).marks("kcm")) == 2


def test_more_rows_make_a_larger_mark(inputs, read_drawing) -> None:
    few, many = read_drawing(reliability({"kcm": inputs.reliability["kcm"]})).marks("kcm")
    assert float(few.attrib["r"]) < float(many.attrib["r"])


def test_the_diagonal_is_where_confidence_is_accuracy(inputs, read_drawing) -> None:
    drawing = read_drawing(reliability(inputs.reliability))
    (diagonal,) = drawing.lines("large dashed")
    for end in "12":
        sure = drawing.at("x", float(diagonal.attrib[f"x{end}"]))
        assert drawing.at("y", float(diagonal.attrib[f"y{end}"])) == pytest.approx(sure, abs=0.3)


def test_without_bins_it_says_so() -> None:
    assert "Confidence was not compared with accuracy." in reliability({})

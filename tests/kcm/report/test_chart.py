"""A chart is drawn where its axes say, in text that can be read and markup that every page may show."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from kcm.report.chart import Chart, rows_scale, scale

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def chart(**changes) -> Chart:
    return Chart("Title", "nothing", scale("across", "percent", (0.0, 1.0)), scale("up", "percent"), **changes)


def parsed(drawn: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawn.svg).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def place(element: ElementTree.Element) -> tuple[float, float]:
    x, y = re.search(r"translate\(([-\d.]+),([-\d.]+)\)", element.attrib["transform"]).groups()
    return float(x), float(y)


def test_marks_stand_where_the_ticks_say() -> None:
    drawn = chart()
    drawn.draw("circle", "kcm", [{"x": 0.5, "y": 0.01, "tip": "half"}, {"x": 1.0, "y": 0.02, "tip": "all"}])
    (first, *_), (second, *_) = (
        [m for m in parsed(drawn).iter() if m.get("aria-label") == tip] for tip in ("half", "all")
    )
    ticks = {text.text: place(text) for text in parsed(drawn).iter(f"{SVG}text")}
    assert place(first)[0] == pytest.approx((ticks["40%"][0] + ticks["60%"][0]) / 2, abs=1)
    assert place(second)[1] - place(first)[1] == pytest.approx(ticks["2%"][1] - ticks["1%"][1], abs=0.1)


def test_a_tip_is_a_title_and_a_label() -> None:
    drawn = chart()
    drawn.draw("diamond", "mcm", [{"x": 0.5, "y": 0.01, "tip": HOSTILE}])
    (mark,) = [each for each in parsed(drawn).iter() if each.get("aria-label") == HOSTILE]
    assert mark.findtext(f"{SVG}title") == HOSTILE


def test_names_are_text_and_half_a_character_does_no_harm() -> None:
    drawn = Chart(HOSTILE, "", scale("x", "number"), rows_scale([HOSTILE, "b\ud800"]), 2, sentence=HOSTILE)
    drawn.draw("circle", "kcm", [{"x": 1.0, "y": HOSTILE, "tip": "a"}, {"x": 2.0, "y": "b\ud800", "tip": "b"}])
    tree = parsed(drawn)
    assert {"img", f"{SVG}img"}.isdisjoint(each.tag for each in tree.iter())
    assert tree.get("aria-label") == f"{HOSTILE}. {HOSTILE}"
    assert HOSTILE[:8] in "".join(tree.itertext())


def test_every_page_may_show_it() -> None:
    """No inline style, script or address, whatever is drawn; colours are the page's."""
    drawn = chart()
    drawn.draw("line", "kcm", [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.2}], "a line")
    drawn.draw("dashed", "limit", [{"y": 0.15}])
    drawn.draw("band", "kcm", [{"x": 0.1, "x2": 0.3}])
    drawn.draw("hollow circle", "large", [{"x": 0.2, "y": 0.2, "tip": "here"}])
    tree = parsed(drawn)
    assert {"style", "href", "onclick"}.isdisjoint(key for each in tree.iter() for key in each.attrib)
    assert {f"{SVG}style", f"{SVG}script", f"{SVG}image"}.isdisjoint(each.tag for each in tree.iter())
    colours = {each.get(key) for each in tree.iter() for key in ("fill", "stroke")} - {None, "none", "transparent"}
    assert all(colour.startswith("var(--") for colour in colours), colours
    assert drawn.legend == {"a line": ("kcm", "line")}


def test_what_is_not_known_is_not_drawn() -> None:
    drawn = chart()
    drawn.draw("dashed", "limit", [{"y": None}], "never")
    drawn.draw("circle", "kcm", [{"x": float("nan"), "y": 0.1, "tip": "no"}], "never")
    assert drawn.svg is None
    assert not drawn.legend

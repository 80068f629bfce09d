"""A chart is drawn where its axes say, in text that can be read and markup that every page may show."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from kcm.report.figures import drawing

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>&\"'"
TONE = {"tone": "var(--kcm)", "shape": "circle"}


def point(x: float | None, y: float, tip: str) -> dict[str, Any]:
    return {"x": x, "y": y, "tip": tip, **TONE}


def parsed(*points: dict[str, Any], **rows: Any) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawing("frontier", points=points, **rows)))


def place(element: ElementTree.Element) -> tuple[float, float]:
    x, y = re.search(r"translate\(([-\d.]+),([-\d.]+)\)", element.attrib["transform"]).groups()
    return float(x), float(y)


def labelled(tree: ElementTree.Element, label: str) -> list[ElementTree.Element]:
    return [mark for mark in tree.iter() if mark.get("aria-label") == label]


def test_marks_stand_where_the_ticks_say() -> None:
    """Oracle: the places of the axes' own labels."""
    tree = parsed(point(0.5, 0.01, "half"), point(1.0, 0.02, "all"))
    (first,), (second,) = labelled(tree, "half"), labelled(tree, "all")
    ticks = {text.text: place(text) for text in tree.iter(f"{SVG}text")}
    assert place(first)[0] == pytest.approx((ticks["40%"][0] + ticks["60%"][0]) / 2, abs=1)
    assert place(second)[1] - place(first)[1] == pytest.approx(ticks["2%"][1] - ticks["1%"][1], abs=0.1)


def test_names_are_text_and_half_a_character_does_no_harm() -> None:
    """Names of users never become markup, and a lone surrogate raises nothing."""
    cells = [{"x": "1", "y": name, "shade": 0.5, "text": "9", "tip": name} for name in (HOSTILE, "b\ud800")]
    tree = ElementTree.fromstring(str(drawing("matrix", 2, cells=cells)))
    assert {"img", f"{SVG}img"}.isdisjoint(element.tag for element in tree.iter())
    assert labelled(tree, HOSTILE)
    assert HOSTILE[:8] in "".join(tree.itertext())


def test_every_page_may_show_it() -> None:
    """No inline style, script or address, whatever is drawn; colours are the page's."""
    tree = parsed(
        point(0.2, 0.2, "here"),
        curves=[{"x": 0.1, "y": 0.1, **TONE}, {"x": 0.2, "y": 0.2, **TONE}],
        levels=[{"x": 0.0, "x2": 1.0, "y": 0.15, **TONE}],
        intervals=[{"x": 0.2, "y": 0.1, "y2": 0.3, **TONE}],
    )
    assert {"style", "href", "onclick"}.isdisjoint(key for element in tree.iter() for key in element.attrib)
    assert {f"{SVG}style", f"{SVG}script", f"{SVG}image"}.isdisjoint(element.tag for element in tree.iter())
    colours = {element.get(key) for element in tree.iter() for key in ("fill", "stroke")}
    assert all(colour.startswith("var(--") for colour in colours - {None, "none", "transparent"}), colours


def test_unknown_numbers_are_not_drawn() -> None:
    """A row with a number that is not known has no mark; the others have theirs."""
    tree = parsed(point(None, 0.1, "none"), point(0.1, float("nan"), "nan"), point(0.3, 0.4, "known"))
    assert not labelled(tree, "none")
    assert not labelled(tree, "nan")
    assert len(labelled(tree, "known")) == 1

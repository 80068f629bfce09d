import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from kcm.report.drawing.markup import Html, element, join

XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


@given(XML_TEXT)
def test_any_text_comes_back_from_a_parser_as_it_went_in(text: str) -> None:
    parsed = ElementTree.fromstring(element("p", text, title=text))
    assert (parsed.text or "") == text
    assert parsed.get("title") == text
    assert len(parsed) == 0


def test_markup_is_inserted_as_it_is_and_text_is_not() -> None:
    assert element("p", element("b", "1 < 2"), "<b>") == "<p><b>1 &lt; 2</b>&lt;b&gt;</p>"
    assert join("<i>", Html("<i>")) == "&lt;i&gt;<i>"


def test_none_leaves_out_a_child_and_an_attribute() -> None:
    assert element("td", None, "1", rowspan=None) == "<td>1</td>"


def test_names_of_attributes_follow_the_language_of_the_page() -> None:
    assert element("i", class_="a", aria_label="b", viewBox="c") == '<i class="a" aria-label="b" viewBox="c"></i>'


def test_coordinates_are_short() -> None:
    assert element("circle", cx=10.0, cy=1 / 3, r=4.5) == '<circle cx="10" cy="0.33" r="4.5"></circle>'


def test_a_void_element_has_no_end() -> None:
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'

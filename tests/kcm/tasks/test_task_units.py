"""Rows that share a text or a group make one unit, named alike for many rows at once and for one input."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kcm.inputs.content import Content
from kcm.large.prompts import sanitized
from kcm.tasks.units import (
    content_names,
    group_names,
    text_key,
    text_keys,
    unit_digest,
    unit_of,
)

texts = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.text(" \t\x1c\x85aBß", max_size=8),
        st.text("<>[] INS\u200ba", max_size=8),
        st.sampled_from(["plain text", "Plain  TEXT", " edge", "ﬁne", "İ", ""]),
    ),
    max_size=12,
)


@given(texts)
def test_names_of_many_rows_are_those_of_each_alone(values: list[str]) -> None:
    array = pa.array(values, pa.string())
    keys = text_keys(array)
    assert keys.to_pylist() == [text_key(value) for value in values]
    assert content_names(pa.table({"text": keys})) == [unit_digest(Content(value))[:16].hex() for value in values]
    groups = [unit_digest(Content(), value)[:16].hex() if value else "" for value in values]
    assert group_names(array) == groups


@given(st.text("<>[]/INSTé é\n\x0b\x00\u200b\u200d\u2028\ufeff\ufe0f\U000e0041 ", max_size=12))
def test_texts_that_make_one_question_are_one_unit(text: str) -> None:
    """Promise: an edit that a question does not show makes no new unit."""
    assert text_key(sanitized(text, 4000)) == text_key(text)


def test_what_nobody_sees_makes_no_new_unit() -> None:
    for same in ["\u200bcafé au lait", "caf\u200de\u0301 au\ufe0f lait", "\x00Café\u2060 au lait\U000e0041"]:
        assert text_key(same) == "café au lait"


def test_pictures_and_vectors_are_part_of_a_content() -> None:
    columns = {"text": ["a", "b"], "image": [b"1", b"2"], "vector": list(np.arange(4, dtype=np.float32).reshape(2, 2))}
    for names in (["text", "image"], ["text", "vector"], ["text", "image", "vector"]):
        vectors = pa.array(columns["vector"], pa.list_(pa.float32(), 2))
        table = pa.table({name: vectors if name == "vector" else columns[name] for name in names})
        rows = [Content(**{name: columns[name][row] for name in names}) for row in range(2)]
        assert content_names(table) == [unit_digest(row)[:16].hex() for row in rows]


def test_inputs_are_of_one_unit_where_rows_would_be() -> None:
    """Promise: case, width and space do not make another unit; a group makes one of what it holds."""
    key = b"k" * 32

    def unit(text: str = "", image: bytes = b"", group: str = "") -> str:
        return unit_of(unit_digest(Content(text, image), group), key)

    assert unit("Good  film") == unit("ｇｏｏｄ FILM")
    assert unit("a", group="ann") == unit("b", b"picture", group="ann")
    distinct = [unit("a"), unit("b"), unit("a", b"p"), unit("a", b"q"), unit(image=b"p"), unit("a", group="a")]
    assert len({*distinct}) == 6
    assert unit("\ud800") == unit("\ud800")  # not every string is valid Unicode


def test_units_of_two_logs_cannot_be_joined() -> None:
    digest = unit_digest(Content("a text"))
    assert unit_of(digest, b"one") != unit_of(digest, b"another")
    assert len(unit_of(digest, b"one")) == 32

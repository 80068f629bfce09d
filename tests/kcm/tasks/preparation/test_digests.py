"""Digests of many rows at once are those of each row by itself, as serving computes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kcm.inputs.content import Content
from kcm.tasks.preparation.digests import NONE, as_digests, as_names, content_names, group_names, text_keys
from kcm.tasks.units import text_key, unit_digest

texts = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.text(" \t\x1c\x85aBß", max_size=8),
        st.sampled_from(["plain text", "Plain  TEXT", " edge", "ﬁne", "İ", ""]),
    ),
    max_size=12,
)


@given(texts)
def test_keys_of_texts_are_those_of_each_alone(values: list[str]) -> None:
    assert text_keys(pa.array(values, pa.string())).to_pylist() == [text_key(value) for value in values]


@given(texts)
def test_contents_and_groups_are_named_by_the_digest_of_their_unit(values: list[str]) -> None:
    array = pa.array(values, pa.string())
    names = content_names(pa.table({"text": text_keys(array)}), text_keys(array))
    assert names == [unit_digest(Content(value))[:16].hex() for value in values]
    groups = group_names(array).tolist()
    assert groups == [unit_digest(Content(), value)[:16].hex() if value else "" for value in values]


def test_pictures_and_vectors_are_part_of_a_content() -> None:
    images, vectors = [b"1", b"2", b"1"], np.arange(6, dtype=np.float32).reshape(3, 2)
    table = pa.table(
        {
            "text": ["a", "b", ""],
            "image": pa.array(images, pa.large_binary()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 2),
        }
    )
    for names in (["text", "image"], ["text", "vector"], ["text", "image", "vector"]):
        contents = [
            Content(text, image if "image" in names else b"", vector=vector if "vector" in names else None)
            for text, image, vector in zip("ab", images, vectors, strict=False)
        ]
        found = content_names(table.select(names), table["text"].chunk(0))
        assert found[:2] == [unit_digest(content)[:16].hex() for content in contents]


def test_names_survive_as_digests() -> None:
    names = [unit_digest(Content(text))[:16].hex() for text in "abc"]
    assert as_names(as_digests(names)) == names
    assert as_digests([""])[0] == NONE

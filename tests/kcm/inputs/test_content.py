"""A content knows what it has, and what it is called."""

import pickle

import numpy as np
import pytest

from kcm.inputs.content import IMAGE, TEXT, VECTOR, Content, UnreadableError, contents

BOTH = TEXT | IMAGE


@pytest.mark.parametrize(
    ("content", "lacking"),
    [
        (Content("a"), [None, "image", "image"]),
        (Content(image=b"1"), ["text", None, "text"]),
        (Content("a", b"1"), [None, None, None]),
        (Content(" \n"), ["text", "image", "text"]),
    ],
)
def test_what_is_read_must_be_there(content: Content, lacking: list[str | None]) -> None:
    assert [content.lacks(parts) for parts in (TEXT, IMAGE, BOTH)] == lacking


def test_a_vector_is_a_part_and_texts_are_missed_first() -> None:
    assert Content(vector=np.zeros(2, np.float32)).lacks(VECTOR) is None
    assert [Content().lacks(TEXT | VECTOR), Content("a").lacks(TEXT | VECTOR)] == ["text", "vector"]


def test_only_equal_contents_share_a_key_and_a_text_is_its_own() -> None:
    distinct = [Content("a"), Content("b"), Content("a", b"1"), Content("a", b"2"), Content(image=b"1")]
    distinct += [Content(vector=np.full(2, n, np.float32)) for n in range(2)]
    assert len(set(distinct)) == len(distinct)
    assert Content("a", b"1", np.zeros(1)) == Content("a", b"1")  # pixels are made of the picture
    assert len({content.key for content in distinct}) == len(distinct)
    assert Content("a").key == "a"


def test_pictures_are_not_shown_in_messages() -> None:
    assert "1234" not in repr(Content("a", b"1234"))


def test_columns_become_contents() -> None:
    assert contents(["a", "b"]) == [Content("a"), Content("b")]
    assert contents(["a", ""], [b"", b"1"]) == [Content("a"), Content(image=b"1")]


def test_faults_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableError({3: "there is no image"})))
    assert error.faults == {3: "there is no image"}
    assert str(error) == "1 inputs cannot be read, input 3: there is no image"

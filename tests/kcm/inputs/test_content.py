"""A content knows what it has, and what it is called."""

from __future__ import annotations

import pickle

import pytest

from kcm.inputs.content import IMAGE, TEXT, Content, UnreadableError, contents

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


def test_only_equal_contents_share_a_key_and_a_text_is_its_own() -> None:
    distinct = [Content("a"), Content("b"), Content("a", b"1"), Content("a", b"2"), Content(image=b"1")]
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

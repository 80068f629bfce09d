"""A content knows what it has, and what it is called."""

import numpy as np
import pytest

from kcm.inputs.content import IMAGE, TEXT, Content

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
    distinct += [Content(vector=np.full(2, n, np.float32)) for n in range(2)]
    assert len(set(distinct)) == len(distinct)
    assert Content("a", b"1", np.zeros(1)) == Content("a", b"1")  # pixels are made of the picture
    assert len({content.key for content in distinct}) == len(distinct)
    assert Content("a").key == "a"


def test_pictures_are_not_shown_in_messages() -> None:
    assert "1234" not in repr(Content("a", b"1234"))

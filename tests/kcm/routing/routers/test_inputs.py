"""What is read of an input: any text is readable, a sure confidence stays finite, nothing to read is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kcm.errors import DataError
from kcm.inputs.content import TEXT, Content
from kcm.routing.config import RouteColumns
from kcm.routing.inputs import hashed_words, router_inputs, text_statistics
from kcm.routing.table import read_table


class FakeEncoder:
    dim, identity, reads = 2, "fake", TEXT

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        return np.array([[content.size, 1] for content in inputs], dtype=np.float32)


def test_every_column_has_its_place(table_file: Callable[..., Path]) -> None:
    path = table_file(s=[1, 0], l=[1, 1], c=[1.0, 0.25], t=["a b", ""], f=[3, 4])
    columns = RouteColumns(small_correct="s", large_correct="l", confidence="c", text="t", features=("f",))
    inputs = router_inputs(read_table(path, columns), FakeEncoder(), is_confidence=True)
    np.testing.assert_array_equal(inputs.numbers_NF[:, :2], [[3, 1], [4, 0.25]])
    np.testing.assert_allclose(inputs.numbers_NF[:, 2], [np.log(1e6 - 1), np.log(0.25 / 0.75)])
    np.testing.assert_array_equal(inputs.encoding_NE, [[3, 1], [0, 1]])
    assert np.isfinite(inputs.numbers_NF).all()
    assert inputs.words_NV[[1]].nnz == 0


def test_small_model_output_is_read_apart_from_the_text(table_file: Callable[..., Path]) -> None:
    """Promise: what the small model wrote is read as the text is but apart."""
    path = table_file(s=[1, 0], l=[1, 1], t=["a b", "c"], r=["it is 3 + 4 = 7", "a b"])
    columns = RouteColumns(small_correct="s", large_correct="l", text="t")
    text = router_inputs(read_table(path, columns), FakeEncoder(), is_confidence=False)
    responses = columns.model_copy(update={"text": "r"})
    response = router_inputs(read_table(path, responses), FakeEncoder(), is_confidence=False)
    both = columns.model_copy(update={"small_response": "r"})
    inputs = router_inputs(read_table(path, both), FakeEncoder(), is_confidence=False)
    np.testing.assert_allclose(inputs.numbers_NF, np.hstack([text.numbers_NF, response.numbers_NF]))
    np.testing.assert_array_equal(inputs.encoding_NE, np.hstack([text.encoding_NE, response.encoding_NE]))
    np.testing.assert_array_equal(
        inputs.words_NV.toarray(), np.hstack([text.words_NV.toarray(), response.words_NV.toarray()])
    )


def test_texts_are_encoded_once_over_commands(table_file: Callable[..., Path], tmp_path: Path) -> None:
    """A column is read from the cache as long as the texts and the encoder are the same."""
    path = table_file(s=[1, 0, 1], l=[1] * 3, t=["a b c", "a", "a b"])
    rows = read_table(path, RouteColumns(small_correct="s", large_correct="l", text="t"))

    class Absent(FakeEncoder):
        def encode(self, inputs: Sequence[Content]) -> np.ndarray:
            raise AssertionError(inputs)

    first, again = (
        router_inputs(rows, encoder(), is_confidence=False, cache_dir=tmp_path / "encoded")
        for encoder in (FakeEncoder, Absent)
    )
    np.testing.assert_array_equal(first.encoding_NE, [[5, 1], [1, 1], [3, 1]])
    np.testing.assert_array_equal(again.encoding_NE, first.encoding_NE)
    with pytest.raises(AssertionError):
        router_inputs(rows.select([0, 1]), Absent(), is_confidence=False, cache_dir=tmp_path / "encoded")


def test_a_table_with_nothing_to_read_is_refused(table_file: Callable[..., Path]) -> None:
    table = read_table(table_file(s=[1], l=[1]), RouteColumns(small_correct="s", large_correct="l"))
    with pytest.raises(DataError, match="nothing to route by"):
        router_inputs(table, None, is_confidence=False)
    assert router_inputs(replace(table, confidence=np.ones(1)), None, is_confidence=False).numbers_NF.shape == (1, 1)


def test_words_and_pairs_are_counted_by_rows_of_length_one() -> None:
    words = hashed_words(["red fish blue fish", "red", "赤い 魚 🙂", "the the the"])
    np.testing.assert_allclose(np.square(words.toarray()).sum(1), 1)
    assert words[[0]].nnz == 6
    assert words.min() == 0  # words that share a bucket add up


def test_statistics_are_those_of_the_text() -> None:
    (row,) = np.expm1(text_statistics(["Ann has 3 pears, Bob 12.\nHow many have they?"]))
    length, words, sentences = 44, 10, 2
    assert row[:4] == pytest.approx([length, words, sentences, words / sentences])
    assert row[6:9] == pytest.approx([2, 2, 3])
    assert row[9:] == pytest.approx([3, 1, 1, 1, 0, 0, 0, 0])
    assert np.expm1(text_statistics(["€5 or 4.5%/day"]))[0, 12:] == pytest.approx([0, 1, 1, 1, 1])
    assert text_statistics([]).shape == (0, len(row))

"""Words beside the embedding of a text: what they weigh, when they help, and how they are stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.encoders.words import Words, fit_words, useful_scale
from kcm.errors import AssetError
from kcm.inputs.content import contents
from kcm.metrics.intervals import Units

NOUNS = ("film", "book", "song", "play", "meal", "trip", "walk", "game")
VERBS = ("saw", "liked", "left", "began", "ended", "missed")


def texts(count: int, seed: int = 0) -> list[str]:
    """Short sentences; the words good and bad are in half of them each."""
    rng = np.random.default_rng(seed)
    draw = rng.choice
    return [f"we {draw(VERBS)} a {draw(('good', 'bad'))} {draw(NOUNS)} and {draw(NOUNS)}" for _ in range(count)]


def fitted(rows: list[str]) -> Words:
    words = fit_words(rows)
    assert words is not None
    return words


def gram(matrix: np.ndarray) -> np.ndarray:
    return matrix @ matrix.T


def test_topics_equal_scikit_learn() -> None:
    """Promise: topics are the latent semantic analysis of scikit-learn's TF-IDF, apart from their common length."""
    rows = texts(150) * 2  # no word of a single row, which only the vectorizer with a vocabulary would weigh
    options = {"sublinear_tf": True, "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    weighted = TfidfVectorizer(**options).fit_transform(rows)
    topics = fitted(rows).encode(rows)
    expected = gram(TruncatedSVD(topics.shape[1], random_state=0).fit_transform(weighted))
    np.testing.assert_allclose(gram(topics), expected * len(rows) / np.trace(expected), atol=2e-3)


def test_rows_do_not_depend_on_each_other() -> None:
    rows = texts(100)
    words = fitted(rows)
    np.testing.assert_allclose(words.encode(rows)[7:8], words.encode(rows[7:8]), atol=1e-6)


def test_unknown_words_are_zero() -> None:
    assert not fitted(texts(100)).encode(["entirely unheard", "", "?!"]).any()


def test_texts_without_common_words_have_no_topics() -> None:
    assert fit_words([f"w{number}" for number in range(50)]) is None
    assert fit_words([""]) is None


@pytest.mark.parametrize("words_carry_the_label", [True, False])
def test_words_are_used_only_if_they_help(words_carry_the_label: bool) -> None:
    """Promise: words get a scale if they carry the label that the embedding lacks, and none if they are noise."""
    rows, rng = texts(300), np.random.default_rng(1)
    embedding_ND = rng.standard_normal((300, 8)).astype(np.float32)
    by_word_N = np.array(["good" in row for row in rows])
    label_N = (by_word_N if words_carry_the_label else embedding_ND[:, 0] > 0).astype(np.int64)
    scale = useful_scale(embedding_ND, fitted(rows).encode(rows), label_N, Units(None, 300))
    assert (scale > 0) == words_carry_the_label


def test_encoder_adds_stored_words(model_folder: Path, tmp_path: Path) -> None:
    """Promise: topics follow the unchanged embedding, and the encoder's identity covers the words."""
    rows = texts(60)
    words = fitted(rows).scaled(0.5)
    words.save(tmp_path)
    plain = TextEncoderConfig(model=str(model_folder))
    beside = plain.aligned(tmp_path)
    encoder, dim = beside.load(tmp_path), plain.load(tmp_path).dim
    features = encoder.encode(contents(rows))
    np.testing.assert_array_equal(features[:, :dim], plain.load(tmp_path).encode(contents(rows)))
    np.testing.assert_array_equal(features[:, dim:], words.encode(rows))
    assert encoder.dim == features.shape[1]
    identities = {plain.identity(tmp_path), beside.identity(tmp_path)}
    words.scaled(0.5).save(tmp_path)
    assert len(identities | {beside.identity(tmp_path)}) == 3


def test_large_side_shares_the_network_below_words(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: two sides with one text model load it once, though words are fitted for one of them."""

    class Counted(TextEncoder):
        num_loaded = 0

        def __init__(self, *arguments: Any) -> None:
            Counted.num_loaded += 1
            super().__init__(*arguments)

    monkeypatch.setattr("kcm.encoders.text.TextEncoder", Counted)
    fitted(texts(60)).save(tmp_path)
    large = TextEncoderConfig(model=str(model_folder), runtime="torch", max_length=9)
    sides = [config.build(tmp_path) for config in (large.aligned(tmp_path), large)]
    assert (len(sides), Counted.num_loaded) == (2, 1)


def test_damaged_words_are_refused(model_folder: Path, tmp_path: Path) -> None:
    beside = TextEncoderConfig(model=str(model_folder)).aligned(tmp_path)
    with pytest.raises(AssetError, match="no fitted words here"):
        beside.load(tmp_path)
    (tmp_path / "words.safetensors").write_bytes(b"damaged")
    with pytest.raises(AssetError, match="not fitted words"):
        beside.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bucket_V": np.array([5, 2**18])}, "buckets"),
        ({"bucket_V": np.array([-1, 5])}, "buckets"),
        ({"topic_VK": np.ones(2, dtype=np.float32)}, "do not fit together"),
        ({"weight_V": np.ones(3, dtype=np.float32)}, "do not fit together"),
        ({"topic_VK": np.full((2, 3), np.nan, dtype=np.float32)}, "not finite"),
        ({"rare": float("inf")}, "not finite"),
    ],
)
def test_crafted_words_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """Promise: arrays that no fit writes are refused when they are read, not when a text arrives."""
    words = Words(np.array([5, 9]), np.ones(2, dtype=np.float32), 1.0, np.ones((2, 3), dtype=np.float32))
    replace(words, **change).save(tmp_path)
    with pytest.raises(AssetError, match=reason):
        Words.load(tmp_path)

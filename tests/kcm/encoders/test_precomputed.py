"""Vectors that come with the rows are taken as they are, or refused."""

from pathlib import Path

import numpy as np
import pytest

from kcm.config import Config, parse_config
from kcm.encoders import EncoderConfig, encode_readable
from kcm.encoders.precomputed import PrecomputedConfig, vector_columns
from kcm.errors import ConfigError
from kcm.inputs.content import Content, UnreadableError

HERE = Path()


class Section(Config):
    encoder: EncoderConfig


def given(*numbers: float) -> Content:
    return Content(vector=np.array(numbers, dtype=np.float32))


def test_vectors_are_given_back_as_they_are() -> None:
    encoder = PrecomputedConfig(column="embedding", dim=2).build(HERE)
    features_ND = encoder.encode([given(1, 2), given(3, 4)])
    np.testing.assert_array_equal(features_ND, np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert features_ND.dtype == np.float32
    assert encoder.encode([]).shape == (0, 2)


def test_unusable_vector_is_named_and_others_are_read() -> None:
    encoder = PrecomputedConfig(column="embedding", dim=2).build(HERE)
    inputs = [given(1, 2), given(1, 2, 3), Content("a text"), given(1, np.nan), given(5, 6)]
    features_ND, faults = encode_readable(encoder, inputs)
    np.testing.assert_array_equal(features_ND, [[1, 2], [5, 6]])
    assert faults == {
        1: "the vector has 3 numbers instead of 2",
        2: "no vector",
        3: "the vector holds a number that is not finite",
    }
    with pytest.raises(UnreadableError, match="input 1: the vector has 3 numbers instead of 2"):
        encoder.encode(inputs)


def test_identity_names_the_source_not_the_length() -> None:
    one = PrecomputedConfig(column="embedding")
    assert (
        one.identity(HERE) == one.with_settings(dim=3).identity(HERE) == one.with_settings(dim=3).build(HERE).identity
    )
    others = [PrecomputedConfig(column="other"), PrecomputedConfig(columns=("embedding", "other"))]
    assert len({each.identity(HERE) for each in (one, *others)}) == 3


def test_the_columns_are_those_of_the_configuration() -> None:
    written = {"encoder": {"kind": "precomputed", "columns": ["f_*"]}}
    assert vector_columns(parse_config(Section, written).encoder) == ("f_*",)
    for wrong in ({}, {"column": "a", "columns": ["b"]}):
        with pytest.raises(ConfigError, match="give either `column`, with a list of numbers, or `columns`"):
            parse_config(Section, {"encoder": {"kind": "precomputed"} | wrong})

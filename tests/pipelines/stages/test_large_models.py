"""Rows carry one vector: a large model that reads another one is refused before anything is computed."""

from __future__ import annotations

import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.stages.features import Features

VECTORS = {"kind": "precomputed", "column": "embedding"}
TEXT = {"kind": "text", "model": "any"}


def check(encoder: object, large: object) -> None:
    source = {"kind": "files", "path": "rows.parquet"}
    config = parse_config(RunConfig, {"name": "n", "tasks": {"source": source}, "encoder": encoder, "large": large})
    Features.of(config).check()


@pytest.mark.parametrize("backbone", [VECTORS, TEXT])
def test_vectors_go_with_a_large_model_over_the_same_ones_or_over_texts(backbone) -> None:
    check(VECTORS, {"adapter": "classifier", "encoder": backbone})
    check(VECTORS, {"adapter": "recorded", "path": "answers.parquet"})


@pytest.mark.parametrize("encoder", [VECTORS, TEXT])
def test_other_vectors_are_refused(encoder) -> None:
    other = {"kind": "precomputed", "columns": ["f_*"]}
    with pytest.raises(ConfigError, match=r"the large model reads the vectors f_\*, which are not the encoder's"):
        check(encoder, {"adapter": "classifier", "encoder": other})

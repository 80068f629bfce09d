"""The encoder that actors use is chosen once, and what computed the features is recorded with them."""

from types import SimpleNamespace

import pytest

from kcm.config import parse_config
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.runtime import in_runtime, runtime_of
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.stages import features
from pipelines.stages.features import Encoding, Features
from pipelines.store.features import FeaturesArtefact
from tests.pipelines.runs import SOURCE


def written_by(encoder, folder, monkeypatch) -> tuple[FeaturesArtefact, list]:
    """The artefact that an encoder's rows make, and what the actors were given."""
    given = []

    def encode_shards(attempt, encoder, sources, folder, scratch, with_texts):
        given.append(encoder)
        return 7

    monkeypatch.setattr(features, "encode_shards", encode_shards)
    sequence = SimpleNamespace(all_shards={}, names=SimpleNamespace(tasks=()))
    context = SimpleNamespace(assets_path=folder, store=SimpleNamespace(storage=None))
    attempt = SimpleNamespace(context=context, folder=folder, scratch=folder, bar=None)
    Encoding(encoder=encoder, identity="i", device="cpu").write(attempt, sequence)
    return FeaturesArtefact("features", folder.name, folder), given


@pytest.mark.parametrize("faster", ["torch", "onnx"])
def test_auto_is_resolved_once_for_all_actors_and_recorded(faster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "resolved", lambda encoder, assets_dir, device: in_runtime(encoder, faster))
    artefact, given = written_by(TextEncoderConfig(model="m"), tmp_path, monkeypatch)
    assert [runtime_of(encoder) for encoder in given] == [faster]
    assert artefact.runtime == faster


def test_texts_that_are_read_in_part_are_told(tmp_path, monkeypatch) -> None:
    artefact, _ = written_by(PixelsConfig(), tmp_path, monkeypatch)
    said: list[str] = []
    context = SimpleNamespace(reporter=SimpleNamespace(say=said.append))
    Features.model_construct().publish(artefact, context)  # type: ignore[call-arg]
    assert artefact.num_cut == 7
    assert "encoder: of 7 texts the end is not read" in said[0]


VECTORS = {"kind": "precomputed", "column": "embedding"}
TEXT = {"kind": "text", "model": "any"}


def check(encoder: object, large: object) -> None:
    config = parse_config(RunConfig, {"name": "n", "tasks": {"source": SOURCE}, "encoder": encoder, "large": large})
    Features.of(config).check()


@pytest.mark.parametrize("backbone", [VECTORS, TEXT])
def test_vectors_work_with_large_models_on_vectors_or_texts(backbone) -> None:
    """Promise: vectors go with a large model over the same ones or over texts."""
    check(VECTORS, {"adapter": "classifier", "encoder": backbone})
    check(VECTORS, {"adapter": "recorded", "path": "answers.parquet"})


@pytest.mark.parametrize("encoder", [VECTORS, TEXT])
def test_other_vectors_are_refused(encoder) -> None:
    other = {"kind": "precomputed", "columns": ["f_*"]}
    with pytest.raises(ConfigError, match=r"the large model reads the vectors f_\*, which are not the encoder's"):
        check(encoder, {"adapter": "classifier", "encoder": other})

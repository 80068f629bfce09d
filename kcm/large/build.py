"""From a configuration to a large model: the one place that knows all adapters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kcm.assets import resolve
from kcm.encoders import Encoder, ImageTextEncoder, build_encoder, encoder_identity
from kcm.errors import ArtefactError
from kcm.large.adapters.causal_lm import CausalLm, CausalLmConfig, causal_lm_identity
from kcm.large.adapters.classifier import ClassifierConfig, ClassifierModel, classifier_identity
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel, UpstreamConfig, api_key, openai_identity
from kcm.large.adapters.recorded import RecordedConfig, RecordedModel
from kcm.large.adapters.zero_shot import ZeroShotConfig, ZeroShotModel, zero_shot_identity
from kcm.large.base import LargeModel
from kcm.large.config import AnyLargeConfig
from kcm.large.head import LinearHead
from kcm.large.paid import PaidStore


def build_large(
    config: AnyLargeConfig,
    label_names: Sequence[str],
    assets_dir: Path,
    *,
    device: str = "cpu",
    head: LinearHead | None = None,
    paid: PaidStore | None = None,
    limit_s: float = math.inf,
) -> LargeModel:
    """The large model that `config` describes, ready to answer.

    `head` is what a classifier was fitted to; `paid` the store in which an adapter that pays keeps what it paid for,
    None to keep it in memory; `limit_s` the time that a server may take for one question.
    Raises AssetError where weights are missing, ConfigError where the configuration does not fit them or a key is
    missing, ArtefactError for a classifier without its head, DataError for a bad recording.
    """
    if isinstance(config, ClassifierConfig):
        return ClassifierModel(build_encoder(config.encoder, assets_dir, device), _required(head), label_names)
    if isinstance(config, ZeroShotConfig):
        encoder = build_encoder(config.encoder, assets_dir, device)
        return ZeroShotModel(config, encoder, _label_encoder(encoder, config, assets_dir), label_names)
    if isinstance(config, CausalLmConfig):
        return CausalLm(config, language_model_folder(config, assets_dir), label_names, device)
    if isinstance(config, OpenAiConfig):
        return OpenAiModel(config, label_names, paid, limit_s)
    return RecordedModel(config, label_names)


def large_identity(
    config: AnyLargeConfig, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None
) -> str:
    """The identity of the model that `config` describes, without loading weights; raises what `build_large` raises."""
    if isinstance(config, ClassifierConfig):
        return classifier_identity(encoder_identity(config.encoder, assets_dir), _required(head), label_names)
    if isinstance(config, ZeroShotConfig):
        inputs, labels = (encoder_identity(each, assets_dir) for each in (config.encoder, config.label_encoder))
        return zero_shot_identity(config, inputs, labels, label_names)
    if isinstance(config, CausalLmConfig):
        return causal_lm_identity(config, language_model_folder(config, assets_dir), label_names)
    if isinstance(config, OpenAiConfig):
        api_key(config)
        return openai_identity(config, label_names)
    return RecordedModel(config, label_names).identity


def operated(config: AnyLargeConfig, upstreams: Sequence[UpstreamConfig]) -> AnyLargeConfig:
    """The large model of a bundle as it may be asked here: by keys and at addresses of the operator's choice alone.

    Raises ConfigError for an address that is not among `upstreams`.
    """
    return config.at(upstreams) if isinstance(config, OpenAiConfig) else config


def location(config: AnyLargeConfig) -> str:
    """Where the model is said to be, for messages."""
    if isinstance(config, ClassifierConfig | ZeroShotConfig):
        return config.encoder.name
    if isinstance(config, RecordedConfig):
        return config.path
    return config.model


def language_model_folder(config: CausalLmConfig, assets_dir: Path) -> Path:
    """The folder of a language model, fetched from the hub where it is not at hand."""
    return resolve(config.model, assets_dir, weights=config.gguf_file or "*.safetensors")


def _label_encoder(encoder: Encoder, config: ZeroShotConfig, assets_dir: Path) -> Encoder:
    """The encoder of label prompts that belongs to that of the inputs."""
    if isinstance(encoder, ImageTextEncoder):
        return encoder.of_texts(encoder_identity(config.label_encoder, assets_dir))
    return encoder


def _required(head: LinearHead | None) -> LinearHead:
    if head is None:
        raise ArtefactError("the large model is a classifier, and the bundle holds no head for it")
    return head

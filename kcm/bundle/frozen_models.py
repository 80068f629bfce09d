"""A bundle's frozen models: their description, checks and loading, without any of its networks.

Torch is not imported: commands that only ask the large model, or only check a bundle, start in a fraction of the time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field

from kcm.assets.trusted_paths import BundleName
from kcm.bundle import MANIFEST
from kcm.bundle.sealed_folder import SealedFolder, read_manifest
from kcm.components import of_a_bundle
from kcm.config import Config, with_paths
from kcm.encoders import Encoder, EncoderConfig
from kcm.encoders.runtime import computed_by, kind_of
from kcm.errors import ArtefactError
from kcm.inputs.content import Part
from kcm.inputs.visible import Name
from kcm.large import LargeConfig, LargeModel, LinearHead, Resources, UpstreamConfig

if TYPE_CHECKING:
    from kcm.large.response_cache import ResponseStore

FORMAT = 1
HEAD = "large_head.safetensors"
WITHIN = "bundle:"  # prefix of the model name of an encoder inside the bundle, before the folder's name
ENCODER, LARGE_ENCODER = "encoder", "large_encoder"  # folders of heads fitted by a run
CERTIFICATE = "certificate.json"
COMPUTED_BY = "computed_by.json"
NOT_CERTIFIED = "not certified for new rows: `kcm label` certifies the next file, `kcm run` a model for new rows"


@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenModels:
    """The frozen encoder and the large model of a bundle, and the labels that they are asked about.

    `none_label` is the large model's answer to inputs with none of the labels, if it has one; `large_head` is None if
    the large model has none. `certified_by` is what computed the certify rows; None without a certificate. `digest` is
    the digest of the manifest, and so of everything; empty until written.
    """

    label_names: tuple[str, ...]
    none_label: str | None = None
    encoder: EncoderConfig
    encoder_identity: str
    large: LargeConfig
    large_identity: str
    large_head: LinearHead | None = None
    certified_by: ComputedBy | None = None
    digest: str = ""

    def void_on(self, encoder_device: str, large_device: str) -> str | None:
        """Why the certificate of the bundle does not hold on these devices; None if it does."""
        return void_reason(self.certified_by, ComputedBy.of(self.encoder, self.large, encoder_device, large_device))

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The possible answers of the large model: the label list, then none-of-these if it exists."""
        return self.label_names if self.none_label is None else (*self.label_names, self.none_label)

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of an input that either side reads; each must be present."""
        return self.encoder.reads | self.large.reads

    @classmethod
    def read_models(cls, folder: Path) -> FrozenModels:
        """The frozen models of the bundle in a folder, all of whose files are checked against its manifest.

        Raises ArtefactError naming the file that is missing, damaged or of another format, ConfigError naming a
        component that is not installed.
        """
        return FrozenModels.of(SealedFolder(folder, MANIFEST, FORMAT))

    @classmethod
    @of_a_bundle()
    def of(cls, files: SealedFolder) -> FrozenModels:
        """As `read_models`, from an open folder."""
        names, folder = files.config(BundleNames, "labels.json"), files.folder
        encoder, large = files.config(EncoderFile, "encoder.json"), files.config(LargeFile, "large.json")
        large_config = large.config.with_backbone(lambda backbone: _locate(backbone, LARGE_ENCODER, files))
        of_bundle = partial(BundleName, folder=folder.absolute())
        return FrozenModels(
            label_names=names.labels,
            none_label=names.none_label,
            encoder=with_paths(_locate(encoder.config, ENCODER, files), of_bundle),
            encoder_identity=encoder.identity,
            large=with_paths(large_config, of_bundle),
            large_identity=large.identity,
            large_head=LinearHead.load(folder / HEAD) if files.has(HEAD) else None,
            certified_by=files.config(ComputedBy, COMPUTED_BY) if files.has(COMPUTED_BY) else None,
            digest=files.digest,
        )


def bundle_digest(folder: Path) -> str:
    """The `digest` of the bundle in a folder, without reading it. Raises ArtefactError if there is none."""
    return hashlib.sha256(read_manifest(folder, MANIFEST)).hexdigest()


def load_encoder(models: FrozenModels, assets_dir: Path, device: str = "cpu") -> Encoder:
    """The frozen encoder; ArtefactError if it is not the encoder of the bundle."""
    encoder = models.encoder.build(assets_dir, device)
    _require_same("encoder", encoder.identity, models.encoder_identity, models.encoder.name)
    return encoder


def load_large(
    models: FrozenModels,
    assets_dir: Path,
    device: str = "cpu",
    *,
    upstreams: Sequence[UpstreamConfig] = (),
    responses: ResponseStore | None = None,
    limit_s: float = math.inf,
) -> LargeModel:
    """The large model; ArtefactError if it is not the model with which the bundle was certified.

    `upstreams` are the servers that may answer for the bundle's model; ConfigError for any other. `responses` is the
    store of paid answers; None keeps them in memory. `limit_s` is the time limit of one question to a server.
    """
    large = _own_large(models, assets_dir, upstreams)
    return large.build(large_names(models), assets_dir, Resources(device, models.large_head, responses, limit_s))


def with_first_labels(
    models: FrozenModels, num_labels: int, assets_dir: Path, upstreams: Sequence[UpstreamConfig] = ()
) -> FrozenModels:
    """The frozen models when the label list ended after `num_labels`: the labels and model asked at that time."""
    if num_labels == len(models.label_names):
        return models
    values = {field.name: getattr(models, field.name) for field in fields(FrozenModels)}
    head = models.large_head and models.large_head.first(num_labels)
    parent = FrozenModels(**values | {"label_names": models.label_names[:num_labels], "large_head": head})
    identity = parent.large.at(upstreams).identity(large_names(parent), assets_dir, head=parent.large_head)
    return replace(parent, large_identity=identity)


def require_models(models: FrozenModels, assets_dir: Path, upstreams: Sequence[UpstreamConfig] = ()) -> None:
    """Raise the errors of loading for a wrong encoder or large model, without loading."""
    encoder = models.encoder.identity(assets_dir)
    _require_same("encoder", encoder, models.encoder_identity, models.encoder.name)
    _own_large(models, assets_dir, upstreams)


def _own_large(models: FrozenModels, assets_dir: Path, upstreams: Sequence[UpstreamConfig]) -> LargeConfig:
    """The large model as it may be asked here; ArtefactError if it is not the bundle's own."""
    large = models.large.at(upstreams)
    identity = large.identity(large_names(models), assets_dir, head=models.large_head)
    _require_same("large model", identity, models.large_identity, models.large.location)
    return large


def large_names(models: FrozenModels) -> tuple[str, ...]:
    """The labels that the large model may answer; a classifier is fitted to the label list, without none-of-these."""
    return models.label_names if models.large.fits_on_train else models.answer_names


def _require_same(subject: str, actual: str, expected: str, where: str) -> None:
    if actual != expected:
        raise ArtefactError(
            f"the {subject} differs from the bundle's: {actual[:12]}, not {expected[:12]}",
            where=where,
            hint="Fetch the original, or train and certify again with this one",
        )


def _locate(encoder: EncoderConfig, name: str, files: SealedFolder) -> EncoderConfig:
    """The encoder that a bundle names, at its current location. Raises ArtefactError for files outside the manifest."""
    if WITHIN + name not in (encoder.name, str(encoder.fitted_head)):
        if encoder.fitted_head is not None:
            raise ArtefactError(f"its encoder names fitted files outside the bundle: {encoder.fitted_head}")
        return encoder
    folder = files.folder.absolute() / name
    for file in folder.iterdir() if folder.is_dir() else ():
        if not files.has(f"{name}/{file.name}"):
            raise ArtefactError("the manifest does not list this file", where=str(file))
    return encoder.aligned(folder)


class BundleNames(Config):
    """`labels.json`."""

    labels: tuple[Name, ...]
    tasks: tuple[Name, ...]
    none_label: Name | None = None


class EncoderFile(Config):
    """`encoder.json`."""

    config: EncoderConfig
    identity: str


class LargeFile(Config):
    """`large.json`."""

    config: LargeConfig
    identity: str


class ComputedBy(Config):
    """A runtime and the kind of its device for each side, such as `onnx on cpu`; empty if nothing is computed."""

    encoder: str = Field(description="Runtime and device of the small side's encoder.")
    large: str = Field(description="Runtime and device of the large model.")

    @classmethod
    def of(cls, encoder: EncoderConfig, large: LargeConfig, encoder_device: str, large_device: str) -> Self:
        """The runtime and device of both sides on these devices."""
        is_local = not (large.remote or large.is_recorded)
        local = computed_by(large.backbone, large_device) if large.backbone else kind_of(large_device)
        return cls(encoder=computed_by(encoder, encoder_device), large=local if is_local else "")

    def difference(self, other: ComputedBy) -> str:
        """In words, the difference between this (certified) and `other` (served)."""
        sides = (("encoder", self.encoder, other.encoder), ("large model", self.large, other.large))
        return "; ".join(
            f"the {name} was certified in {version or 'nothing'} and runs in {other_version or 'nothing'}"
            for name, version, other_version in sides
            if version != other_version
        )


def void_reason(certified: ComputedBy | None, serving: ComputedBy) -> str | None:
    """Why a certificate does not hold for what `serving` computes; None if it does.

    `certified` is None for a bundle without a certificate.
    """
    if certified is None or certified == serving:
        return None
    return (
        f"{certified.difference(serving)}: serve it as it was certified, or certify it again with `kcm run`, that"
        " runtime and another storage_path"
    )

"""The bundle: a trained cascade without its frozen models, in one folder that is registered, served and extended.

Encoder and large model are referenced by name and identity; a bundle loads only with the same ones. Fitted parts of
an encoder, such as its words, are included.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor, nn

from kcm.bundle import MANIFEST
from kcm.bundle.frozen_models import (
    CERTIFICATE,
    COMPUTED_BY,
    ENCODER,
    FORMAT,
    HEAD,
    LARGE_ENCODER,
    WITHIN,
    BundleNames,
    EncoderFile,
    FrozenModels,
    LargeFile,
)
from kcm.bundle.sealed_folder import SealedFolder, sealing, write_json, write_state, write_tensors
from kcm.cascade.gate import Gate
from kcm.cascade.gate_kinds import GateHead, form_named
from kcm.cascade.novelty import Reach
from kcm.cascade.policy import POLICY_FILE, Policy, keeps_all_words
from kcm.certification.certificate import Certificate, confidence
from kcm.certification.monitoring.novelty import NoveltyReference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.components import of_a_bundle
from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.errors import ArtefactError, ConfigError
from kcm.learners import LearnerConfig

GATE = "gate.safetensors"
_SHOWN = 6  # labels or tasks that a line names
NOVELTY, CERTIFY_ROWS = "novelty.json", "certify_rows.safetensors"


class Lineage(Config):
    """Fingerprints of the artefacts from which a bundle was made, and the version that it extends."""

    artefacts: dict[str, str] = Field(default_factory=dict, description="Fingerprint of each stage's artefact.")
    parent: str | None = Field(default=None, description="Digest of the bundle whose training this one continues.")


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle(FrozenModels):
    """A trained cascade: its frozen models by name and identity, everything else included.

    `certificates` are by task; None is the key of the certificate for requests without a task, as in `certify_policy`.
    `learner_state` is the input of the next task. `novelty` tells whether traffic has new classes; `certify_rows` are
    features [R, D] for explanations. They are None if there were too few rows. Raises ArtefactError if the parts do not
    fit each other.
    """

    collaborator: Collaborator
    seed: int
    task_names: tuple[str, ...]
    policy: Policy
    learner: LearnerConfig
    gate_head: GateHead | None = None
    certificates: Mapping[str | None, Certificate] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    learner_state: Mapping[str, object] = field(default_factory=dict)
    novelty: NoveltyReference | None = None
    certify_rows: Tensor | None = None
    lineage: Lineage = field(default_factory=Lineage)

    def __post_init__(self) -> None:
        if len(self.label_names) != self.collaborator.num_labels:
            raise ArtefactError(
                f"{len(self.label_names)} label names for a collaborator of {self.collaborator.num_labels} labels"
            )
        if unknown_tasks := sorted(set(self.policy.task_decisions) - set(self.task_names)):
            raise ArtefactError(
                f"the policy decides for tasks that are not in the sequence: {', '.join(unknown_tasks)}"
            )
        try:
            _ = self.gate
        except ConfigError as error:
            fault = f"the policy's gate is {self.policy.gate!r}, but the bundle lacks its head: {error.what}"
            raise ArtefactError(fault) from None

    @property
    def gate(self) -> Gate:
        """The gate score on which the policy's thresholds are set."""
        reach = Reach.of(self.learner_state, self.policy.farthest)
        return Gate(self.policy.gate, self.policy.temperature, self.gate_head, reach)

    def replace(self, folder: Path) -> None:
        """Write the bundle in place of what is at `folder`, which stays until the new bundle is whole."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            draft = self.write(Path(scratch) / folder.name)
            if folder.exists():
                folder.replace(Path(scratch) / "earlier")
            draft.replace(folder)

    def write(self, folder: Path) -> Path:
        """Write the bundle to a new folder atomically; ArtefactError if the folder exists."""
        collaborator = self.collaborator
        config = _Networks(
            kind=collaborator.kind,
            network=collaborator.network,
            in_features=collaborator.in_features,
            num_words=collaborator.num_words,
            seed=self.seed,
            learner=self.learner,
        )
        documents: dict[str, Config] = {
            "config": config,
            "labels": BundleNames(labels=self.label_names, tasks=self.task_names, none_label=self.none_label),
            CERTIFICATE.removesuffix(".json"): _Certificates.of(self.certificates),
            "lineage": self.lineage,
        }
        if self.certificates and self.certified_by:
            documents[COMPUTED_BY.removesuffix(".json")] = self.certified_by
        with sealing(folder, MANIFEST, FORMAT) as draft:
            encoder = _copied_head(self.encoder, ENCODER, draft)
            large = self.large.with_backbone(lambda backbone: _copied_head(backbone, LARGE_ENCODER, draft))
            documents |= {
                "encoder": EncoderFile(config=encoder, identity=self.encoder_identity),
                "large": LargeFile(config=large, identity=self.large_identity),
            }
            for name, document in documents.items():
                write_json(draft / f"{name}.json", document.model_dump(mode="json"))
            self.policy.save(draft)
            write_json(draft / "metrics.json", dict(self.metrics))
            parts = {name: module.state_dict() for name, module in _modules(collaborator).items()}
            for name, tensors in (parts | {"gate": self.gate.tensors}).items():
                if tensors:
                    write_tensors(draft / f"{name}.safetensors", tensors)
            if self.large_head is not None:
                self.large_head.save(draft / HEAD)
            if self.novelty is not None:
                write_json(draft / NOVELTY, self.novelty.model_dump())
            if self.certify_rows is not None:
                write_tensors(draft / CERTIFY_ROWS, {"rows": self.certify_rows})
            write_state(draft / "learner", self.learner_state)
        return folder

    @classmethod
    @of_a_bundle()
    def read(cls, folder: Path) -> Bundle:
        """Read a bundle, with its networks in evaluation mode.

        Raises ArtefactError naming the file that is missing, damaged or of another format, ConfigError naming a
        component that is not installed.
        """
        files = SealedFolder(folder, MANIFEST, FORMAT)
        models = FrozenModels.of(files)
        config, names = files.config(_Networks, "config.json"), files.config(BundleNames, "labels.json")
        num_labels = len(names.labels)
        _require_stored(files, config, num_labels)
        collaborator = config.build(num_labels)
        for name, module in _modules(collaborator).items():
            if module.state_dict():
                _load(module, files, name)
        policy, gate_head = files.config(Policy, POLICY_FILE), None
        if files.has(GATE):
            with _weights_of(files, GATE):
                gate_head = form_named(policy.gate).restored(files.tensors(GATE))
        return cls(
            **{field.name: getattr(models, field.name) for field in fields(models)},
            collaborator=collaborator,
            seed=config.seed,
            task_names=names.tasks,
            policy=policy,
            learner=config.learner,
            gate_head=gate_head,
            certificates=files.config(_Certificates, CERTIFICATE).by_task(),
            metrics=files.mapping("metrics.json"),
            learner_state=files.state("learner"),
            novelty=files.config(NoveltyReference, NOVELTY) if files.has(NOVELTY) else None,
            certify_rows=files.matrix(CERTIFY_ROWS, "rows", config.in_features) if files.has(CERTIFY_ROWS) else None,
            lineage=files.config(Lineage, "lineage.json"),
        )


class _Networks(Config):
    """`config.json`: the collaborator's configuration and its learner."""

    kind: NetworkKind
    network: NetworkConfig
    in_features: int = Field(ge=1)
    num_words: int = Field(0, ge=0)
    seed: int = Field(ge=0, lt=2**63)
    learner: LearnerConfig

    @model_validator(mode="after")
    def _has_an_embedding(self) -> _Networks:
        if self.num_words >= self.in_features:
            raise ValueError(f"num_words {self.num_words} of {self.in_features} features leave no embedding")
        return self

    def build(self, num_labels: int) -> Collaborator:
        """The untrained networks."""
        sizes = self.in_features, num_labels, self.network, self.kind, self.seed
        return Collaborator(*sizes, num_words=self.num_words).eval()


class _Certificates(Config):
    """`certificate.json`: for requests without a task, and for tasks with a threshold of their own."""

    common: Certificate | None = None
    tasks: dict[str, Certificate] = Field(default_factory=dict)

    @classmethod
    def of(cls, certificates: Mapping[str | None, Certificate]) -> _Certificates:
        """From certificates by task."""
        task_certificates = {task: certificate for task, certificate in certificates.items() if task is not None}
        return cls(common=certificates.get(None), tasks=task_certificates)

    def by_task(self) -> dict[str | None, Certificate]:
        """As certificates by task."""
        return ({None: self.common} if self.common else {}) | dict(self.tasks)


def _copied_head(encoder: EncoderConfig, name: str, draft: Path) -> EncoderConfig:
    """The encoder as the bundle names it: a fitted head is copied into the draft and referenced there."""
    if encoder.fitted_head is None:
        return encoder
    shutil.copytree(encoder.fitted_head, draft / name, copy_function=shutil.copyfile)
    return encoder.aligned(Path(WITHIN + name))


def _modules(collaborator: Collaborator) -> dict[str, nn.Module]:
    """The parts with a file of their own, by file name; a shared network is stored once."""
    parts = {name: getattr(collaborator, name) for name in ("normalizer", "mixing", "judge")}
    if not collaborator.network.shared:
        parts["small"] = collaborator.small
    if collaborator.base is not None:
        parts["base"] = collaborator.base
    return parts


def _require_stored(files: SealedFolder, config: _Networks, num_labels: int) -> None:
    """Raise ArtefactError for networks larger than their files, before allocating memory for them."""
    network, dim = config.network, config.in_features
    has_units = network.basis != "spline" and config.kind not in ("linear", "mlp")
    num_projected = dim - config.num_words if has_units else dim
    mixes = config.kind == "kan" and network.basis in ("auto", "pspline")
    inputs = (num_projected, network.mixing) if network.projects or mixes else (num_projected,)
    hidden, curve = network.hidden, network.grid_size
    if config.kind == "linear":
        hidden, curve = (), 1
    elif config.kind == "mlp" and network.mlp_width is not None:
        hidden, curve = (network.mlp_width,) * max(1, len(hidden)), 1
    elif network.basis != "spline" and not mixes:
        hidden, curve = (network.mixing,), 1
    layers = sum(first * second for first, second in itertools.pairwise((inputs[-1], *hidden, num_labels)))
    base = {"none": 0, "means": dim * num_labels, "lda": dim * (dim + num_labels)}[network.base]
    claimed = layers * curve + base + math.prod(inputs) * (len(inputs) > 1) + config.num_words * num_labels * has_units
    num_bytes = sum(files.num_bytes(f"{part}.safetensors") for part in ("mixing", "base", "judge", "small"))
    if claimed > num_bytes:  # a number usually takes four bytes
        raise ArtefactError(
            f"its networks need at least {claimed:,} numbers, but their files have only {num_bytes:,} bytes",
            where=str(files.folder / "config.json"),
        )


def _load(module: nn.Module, files: SealedFolder, name: str) -> None:
    file = f"{name}.safetensors"
    with _weights_of(files, file):
        module.load_state_dict(files.tensors(file))


@contextmanager
def _weights_of(files: SealedFolder, file: str) -> Iterator[None]:
    """Raise ArtefactError, naming the file, for tensors that do not fit the network."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ArtefactError(f"weights of another network: {reason}", where=str(files.folder / file)) from None


def facts(bundle: Bundle, void: str | None = None) -> dict[str, str]:
    """Labels, tasks, models, route, promise and digest by name; `void` says why nothing is promised here."""
    decision = bundle.policy.decision
    route = {
        "keep_all": keeps_all_words(bundle.policy.farthest),
        "escalate_all": "the large model answers everything",
    }.get(
        decision.decision,
        f"the small model answers above a gate score of {decision.cut:.4g} (gate {bundle.policy.gate})",
    )
    return {
        "labels": _shortened(bundle.answer_names),
        "tasks": _shortened(bundle.task_names),
        "encoder": bundle.encoder.name,
        "large": bundle.large.location,
        "route": route,
        "promise": f"none here: {void}" if void else _promise(bundle.certificates),
        "digest": bundle.digest[:12] or "not written",
    }


def _promise(certificates: Mapping[str | None, Certificate]) -> str:
    """The promise for all decisions together."""
    common = certificates.get(None)
    if common is None or not all(certificate.valid for certificate in certificates.values()):
        return "none"
    if all(certificate.decision == "escalate_all" for certificate in certificates.values()):
        return f"loses nothing, since the large model answers everything: {common.reason}"
    certain = confidence(certificate.delta for certificate in certificates.values())
    loss = (
        f"loses at most {100 * common.epsilon:g} points of accuracy against" if common.epsilon else "is as accurate as"
    )
    return f"{loss} the large model, with a probability of at least {certain}"


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

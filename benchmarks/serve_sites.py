"""What is measured, started and stopped: the cascade, and the large model behind a replica that computes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ray import serve

from jobs.settings import ServiceSettings
from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide
from kcm.encoders import Encoder
from kcm.inputs.content import Content, Part
from pipelines.cluster.connection import connected
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.cascade.models.large import Large
from pipelines.serve.config import TOP_K, ServeConfig
from pipelines.serve.deploy.app import build_app, build_http_replica, deployment_options, start
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.deploy.http_replica import HttpReplica
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource


class StubEncoder:
    """Encodes nothing: every text has the same features, immediately."""

    identity = "stub"
    reads: frozenset[Part] = frozenset({"text"})

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._features_D = np.full(dim, dim**-0.5, np.float32)

    def read(self, content: Content) -> Content:
        """The content itself."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """The same unit vector for each input, float32 [N, dim]."""
        return np.tile(self._features_D, (len(inputs), 1))


class EscalatesAll(SmallSide):
    """A small side that hands every input on, without looking at it."""

    def judge_features(
        self, features_ND: NDArray[np.float32], inputs: Sequence[Input], encoded_s: float
    ) -> list[Judgement]:
        """Judgements that keep nothing."""
        count = len(self.bundle.label_names)
        judgement = Judgement(
            0, np.full(count, 1 / count), 1 / count, -1e9, np.inf, False, 0.0, np.zeros(1, np.float32)
        )
        return [judgement] * len(inputs)


class LoaderToLarge(VersionLoader):
    """Loads versions that hand every item on to the large model, and have no encoder."""

    def _encoder_of(self, bundle: Bundle) -> Encoder:
        return StubEncoder(bundle.collaborator.in_features)

    def _small_side(self, bundle: Bundle, encoder: Encoder) -> SmallSide:
        return EscalatesAll(bundle, encoder, top_k=TOP_K)


class ReplicaToLarge(HttpReplica.func_or_class):  # type: ignore[name-defined, misc]
    """The HTTP replica of the large model alone: the same interface."""

    loader_class = LoaderToLarge


def started(http_replica: type, source: FixedSource, config: ServeConfig, assets: Path) -> str:
    """The URL of an HTTP replica of this class, before the large model's own deployment."""
    large = Large.options(**deployment_options(config.large, config)).bind(
        source, config.large, assets, config.feedback
    )
    return start(
        build_http_replica(source, config, assets, large, http_replica=serve.deployment(name="http")(http_replica)),
        config,
    )


@dataclass(frozen=True)
class Place:
    """A release and its place, as `kcm serve` would set them; the feedback log is in a temporary folder."""

    release: Release
    site: ServiceSettings

    @contextmanager
    def cascade(self) -> Iterator[str]:
        """What `kcm serve` starts."""
        with self._started() as config:
            yield start(build_app(FixedSource(self.release), config, self.site.assets_path.absolute()), config)

    @contextmanager
    def large_only(self) -> Iterator[str]:
        """The same deployments, whose HTTP replica hands every item on to the large model unseen."""
        with self._started() as config:
            yield started(ReplicaToLarge, FixedSource(self.release), config, self.site.assets_path.absolute())

    @contextmanager
    def _started(self) -> Iterator[ServeConfig]:
        prepare_environment()
        with tempfile.TemporaryDirectory() as folder, connected(self.site.cluster):
            try:
                feedback = self.site.serve.feedback.model_copy(update={"url": f"sqlite:///{folder}/feedback.db"})
                yield self.site.serve.model_copy(update={"feedback": feedback})
            finally:
                serve.shutdown()

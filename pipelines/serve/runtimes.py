"""In which runtime, and on which device, a service computes the networks of a bundle."""

from __future__ import annotations

from typing import TypeVar

from kcm.bundle.models import FrozenModels
from pipelines.serve.config import ServeConfig
from pipelines.serve.release import Release

ModelsT = TypeVar("ModelsT", bound=FrozenModels)


def as_served(models: ModelsT, config: ServeConfig) -> ModelsT:
    """The models in the runtimes that the service is told to use, where it is told."""
    return models.in_runtimes((config.encoder or config).runtime, config.large.runtime)


def devices_of(config: ServeConfig) -> tuple[str, str]:
    """The devices of the encoder and of the large model."""
    return (config.encoder or config).device, config.large.device


def void_release(release: Release, config: ServeConfig) -> str | None:
    """Why the certificate of a release does not hold in this service; None where it does.

    Raises ConfigError for a precision that a device cannot compute.
    """
    models = as_served(FrozenModels.read_models(release.bundle), config)
    return models.void_on(*devices_of(config))

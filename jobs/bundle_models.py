"""The frozen models of a bundle, fetched before a command loads them."""

from __future__ import annotations

from pathlib import Path

from jobs.assets import provide
from kcm.bundle.models import FrozenModels
from pipelines.progress import Reporter


def provide_models(bundle: Path, assets_dir: Path, reporter: Reporter) -> None:
    """Fetch the encoders that a bundle names, see `provide`. Raises ArtefactError for a damaged bundle."""
    models = FrozenModels.read_models(bundle)
    for encoder in (models.encoder, models.large.backbone):
        if encoder is not None:
            provide(encoder.name, assets_dir, reporter)

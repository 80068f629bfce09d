"""The registry: the champion pointer, the promotion gates, and the models in MLflow."""

from __future__ import annotations

from pathlib import Path


def fetch(source: str) -> Path:
    """The bundle of `models:/NAME@ALIAS` or `models:/NAME/VERSION`: the entry point of the scheme, for `kcm.load`."""
    from pipelines.registry.models import fetch as fetch_bundle  # reading the champion pointer does not need MLflow

    return fetch_bundle(source)

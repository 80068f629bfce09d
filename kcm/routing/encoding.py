"""The encoder of a router's texts: MiniLM where its weights lie, none where they do not."""

from __future__ import annotations

from pathlib import Path

from kcm.assets import is_complete
from kcm.assets.resolve import resolve
from kcm.encoders.text import TextEncoder, TextEncoderConfig

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NO_ENCODER = "none"


def find_encoder(model: str | None, assets_dir: Path) -> tuple[TextEncoder | None, str]:
    """The encoder by hub id or folder, and a note where there is none.

    None takes the default if it has been fetched, `none` no encoder. Raises AssetError for a named one that is absent.
    """
    if model == NO_ENCODER:
        return None, ""
    if model is None and not is_complete(DEFAULT_MODEL, assets_dir):
        return None, f"{DEFAULT_MODEL} is not in {assets_dir}: texts are read by hashed words alone; see `kcm assets`"
    config = TextEncoderConfig(model=model or DEFAULT_MODEL, max_length=256)
    return TextEncoder(config, resolve(config.model, assets_dir)), ""

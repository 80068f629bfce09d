"""From the name of a model, as a configuration gives it, to a folder with its files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from kcm.assets import hub
from kcm.assets.fetch import is_complete
from kcm.assets.registry import ASSETS
from kcm.errors import AssetError

_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model")


def resolve(
    model: str,
    assets_dir: Path,
    *,
    weights: str = "*.safetensors",
    connect_timeout: float = 5.0,
    timeout: float = 1800.0,
) -> Path:
    """The folder of a model: a local folder as it is, a known asset from `assets_dir`, any other id from the hub.

    `weights` is the pattern of the files with the weights. An id that the hub's own cache already holds is taken from
    there without asking. The commit of the first time is recorded in `assets_dir` and is the one taken from then on.
    Raises AssetError, naming the command or the path to mend it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model in ASSETS:
        if is_complete(model, assets_dir):
            return assets_dir / model
        what = "is damaged" if (assets_dir / model).exists() else "has not been fetched"
        raise AssetError(f"asset {model!r} {what}", where=str(assets_dir), mend=_command(model))
    if folder.is_absolute() or model.startswith(("./", "../", "~")):
        raise AssetError(
            f"no such model folder {model!r}", mend="Give a folder that exists, or the id of a model on the hub"
        )
    pin = assets_dir / ".revisions" / model.replace("/", "--")
    revision = pin.read_text(encoding="utf-8").strip() if pin.is_file() else None
    if (found := _cached(model, weights, revision)) is None:
        hub.commit_of(model, "model", revision, connect_timeout)  # or it is silent, and not waited for
        patterns = [*_PATTERNS, weights]
        found = hub.download(model, revision, folder=None, patterns=patterns, timeout=timeout)
    if revision is None:
        _pin(pin, found.name)  # the hub's cache names the folder of a snapshot after its commit
    return found


def _pin(pin: Path, commit: str) -> None:
    draft = pin.with_name(f"{pin.name}.{os.getpid()}")
    with suppress(OSError):  # assets may be read-only: their cache is then all that holds the commit
        pin.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(f"{commit}\n", encoding="utf-8")
        draft.replace(pin)


def _command(asset: str) -> str:
    return f"Run `kcm assets{f' {asset}' if ASSETS[asset].by_name else ''}`"


def _cached(model: str, weights: str, revision: str | None) -> Path | None:
    """The hub cache's copy; one without weights is the trace of an interrupted download."""
    try:
        folder = Path(
            snapshot_download(model, revision=revision, local_files_only=True, allow_patterns=[*_PATTERNS, weights])
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise AssetError(
            f"{model!r} is neither a folder nor the id of a model", mend="Write an id as owner/name"
        ) from None
    return folder if any(folder.glob(weights)) else None

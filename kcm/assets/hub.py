"""Models and data sets of the Hugging Face hub, by its own packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kcm.errors import AssetError
from kcm.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

_WEIGHTS = "*.safetensors"
_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", _WEIGHTS)


def cached_model(model: str, revision: str | None) -> Path | None:
    """The folder of a model in the hub's cache; None without one. An interrupted download has no weights."""
    try:
        folder = _snapshot(model, revision, cached=True)
    except (OSError, ValueError):
        return None
    return folder if any(folder.glob(_WEIGHTS)) else None


def download_model(model: str, revision: str | None) -> Path:
    """Download a model, without pickles, into the hub's cache. Raises AssetError if the hub does not deliver."""
    print(f"downloading {model} from the hub", file=sys.stderr)
    try:
        return _snapshot(model, revision, cached=False)
    except Exception as error:  # of the hub's client, or of the HTTP client below it
        raise AssetError(f"the hub failed: {_reason(error)}", where=model) from None


def export_data_set(repo: str, subset: str | None, revision: str | None, *, folder: Path) -> dict[str, Path]:
    """Write every split of a data set as a Parquet file into `folder`, with classes by their names.

    The hub's cache serves if the hub is silent.

    Raises AssetError if there is no cached copy either; MissingExtraError without `datasets`.
    """
    require("datasets", "a data set of the hub")
    import datasets  # slow to import

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(repo, subset, revision=revision)
    except Exception as error:  # a data set may fail in any way
        raise AssetError(f"the hub failed: {_reason(error)}", where=repo) from None
    files = {str(split): folder / f"{split}.parquet" for split in loaded}
    for split, data in loaded.items():
        for column, feature in data.features.items():
            if isinstance(feature, datasets.ClassLabel):
                data = _with_names(data, column, feature.names)
        data.to_parquet(files[str(split)])
    return files


def _with_names(data: Dataset, column: str, names: list[str]) -> Dataset:
    """The data with the classes of a column by name in place of number; a negative number has no name."""
    import datasets

    features = datasets.Features({**data.features, column: datasets.Value("string")})
    named = [None if number is None or number < 0 else names[number] for number in data[column]]
    return data.remove_columns(column).add_column(column, named).select_columns(list(features)).cast(features)


def _snapshot(model: str, revision: str | None, *, cached: bool) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and not needed for fetched assets
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # they would break into the bars of the stages
    patterns = list(_PATTERNS)
    return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=cached))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

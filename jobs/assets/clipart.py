"""Pictures with captions: emoji (npm packages emoji-datasource-*), Tux Paint's stamps (Debian package
tuxpaint-stamps-default) and the Open Clip Art Library (Debian packages openclipart-png and openclipart-svg).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from jobs.assets.members import debian_members, npm_members
from jobs.assets.pictures import Picture, shrunk, write_pictures
from kcm.errors import AssetError

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
    for name, content in npm_members(package):
        if name == _EMOJI_LIST:
            listed = content
        elif name.startswith(folder):
            images[name.removeprefix(folder)] = content
    if not listed:
        raise AssetError(f"the archive holds no file {_EMOJI_LIST!r}", where=package.name)
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

    The label is the topic, its first folder; the text the English caption, the first line of the file beside it.
    Pictures of one caption are one group: some stamps come drawn and photographed.
    """
    (package,) = packages
    images, captions = dict[str, bytes](), dict[str, str]()
    for name, content in debian_members(package):
        stamp, suffix = name.removeprefix(_STAMPS)[:-4], name[-4:]
        if name.startswith(_STAMPS) and suffix == ".png":
            images[stamp] = content
        elif name.startswith(_STAMPS) and suffix == ".txt":
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
    for name, content in debian_members(svg):
        if name.startswith(_SVG) and name.endswith(".svg") and (title_and_tags := _described(content)):
            titled[name.removeprefix(_SVG).removesuffix(".svg")] = title_and_tags
    same_title = Counter(title.casefold() for title, _ in titled.values())
    pictures = []
    for name, content in debian_members(png):
        drawing = name.removeprefix(_PNG).removesuffix(".png")
        title, tags = titled.get(drawing, ("", []))
        if title and same_title[title.casefold()] <= _MAX_SAME_TITLE and (small := shrunk(content)):
            text = ", ".join([title, *(tag for tag in tags if tag not in title.casefold())])
            label, group = PurePosixPath(drawing).parts[0], title.casefold()
            pictures.append(Picture(f"openclipart-{drawing}", small, text, label, task="openclipart", group=group))
    write_pictures(pictures, target)


def _described(drawing: bytes) -> tuple[str, list[str]] | None:
    """Title and tags of an SVG drawing; None where it has no title or is not well-formed."""
    try:
        work = ElementTree.fromstring(drawing).find(f".//{_WORK}")
    except ElementTree.ParseError:
        return None
    title = " ".join((work.findtext(_TITLE) or "").split()) if work is not None else ""
    if work is None or not title:
        return None
    tags = [(tag.text or "").strip().casefold().replace("_", " ") for tag in work.iter(_TAG)]
    return title, [tag for tag in dict.fromkeys(tags) if tag not in _NO_TAGS]

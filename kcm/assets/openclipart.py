"""The Open Clip Art Library: pictures from the Debian package openclipart-png, titles and tags from openclipart-svg."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from kcm.assets.members import debian_members
from kcm.assets.pictures import Picture, shrunk, write_pictures

_PNG, _SVG = "usr/share/openclipart/png/", "usr/share/openclipart/svg/"
_TITLE, _TAG = "{http://purl.org/dc/elements/1.1/}title", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
_WORK = "{http://web.resource.org/cc/}Work"
_NO_TAGS = frozenset({"", "hash", "unsorted"})  # left behind by the library's own tools
_MAX_SAME_TITLE = 10


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

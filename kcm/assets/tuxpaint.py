"""Tux Paint's stamps: pictures with captions by topic, from the Debian package tuxpaint-stamps-default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kcm.assets.members import debian_members
from kcm.assets.pictures import Picture, shrunk, write_pictures

_FOLDER = "usr/share/tuxpaint/stamps/"


def unpack_tuxpaint(packages: Sequence[Path], target: Path) -> None:
    """Write one row per stamp that is a PNG picture with a caption.

    The label is the topic, its first folder; the text the English caption, the first line of the file beside it.
    Pictures of one caption are one group: some stamps come drawn and photographed.
    """
    (package,) = packages
    images, captions = dict[str, bytes](), dict[str, str]()
    for name, content in debian_members(package):
        stamp, suffix = name.removeprefix(_FOLDER)[:-4], name[-4:]
        if name.startswith(_FOLDER) and suffix == ".png":
            images[stamp] = content
        elif name.startswith(_FOLDER) and suffix == ".txt":
            captions[stamp] = content.decode(errors="replace").partition("\n")[0].strip()
    write_pictures((row for stamp in images if (row := _row(stamp, images[stamp], captions.get(stamp, "")))), target)


def _row(stamp: str, image: bytes, caption: str) -> Picture | None:
    small = shrunk(image)
    if not caption or small is None:
        return None
    topic = PurePosixPath(stamp).parts[0]
    return Picture(f"tuxpaint-{stamp}", small, caption, topic, task="tuxpaint", group=caption.casefold())

"""Emoji in two art styles, Google's and Twitter's, from the npm packages emoji-datasource-*."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from kcm.assets.members import npm_members
from kcm.assets.pictures import Picture, write_pictures
from kcm.errors import AssetError

_LIST = "emoji.json"
_MODIFIERS = "Component"  # skin tones and hair: parts of emoji, not emoji


def unpack_emoji(packages: Sequence[Path], target: Path, *, styles: Sequence[str]) -> None:
    """Write one row per emoji and style, the i-th of `styles` from the i-th package.

    The task is the style, the label the category, the text the emoji's name, and the group its code point: an emoji
    never lies in two splits, whatever its style.
    """
    write_pictures((row for pair in zip(packages, styles, strict=True) for row in _read(*pair)), target)


def _read(package: Path, style: str) -> Iterator[Picture]:
    folder = f"img/{style}/64/"
    listed, images = b"", dict[str, bytes]()
    for name, content in npm_members(package):
        if name == _LIST:
            listed = content
        elif name.startswith(folder):
            images[name.removeprefix(folder)] = content
    if not listed:
        raise AssetError(f"the archive holds no file {_LIST!r}", where=package.name)
    for emoji in json.loads(listed):
        if emoji["category"] != _MODIFIERS and emoji["image"] in images:
            yield Picture(
                id=f"{style}-{emoji['unified']}",
                image=images[emoji["image"]],
                text=emoji["name"].lower(),
                label=emoji["category"],
                task=style,
                group=emoji["unified"],
            )

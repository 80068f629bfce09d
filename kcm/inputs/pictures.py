"""Decoding of pictures: the only place where the bytes of a file become pixels.

Inputs are not trusted: the header decides whether a picture is decoded, and every fault is a PictureError with a
reason. Shapes: N pictures, S pixels of a side, 3 channels.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kcm.errors import DataError
from kcm.inputs.content import Content, PartError, UnreadableError
from kcm.inputs.location import Location, naming_location

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # other formats may run programs, or hold no photographs
MAX_PIXELS = 20_000_000
MAX_SCANS = 100  # per JPEG; a scan visits all pixels but needs only a dozen bytes, and real files have about ten

T = TypeVar("T")


class PictureError(PartError):
    """Bytes that are not a usable picture; the message is the reason."""


def picture_of(value: object, folder: Location | None, root: Location | None = None) -> tuple[bytes | None, str]:
    """A picture from a table's cell (bytes, a path from `folder`, or a mapping with both), or the reason why not.

    An empty cell returns None without a reason. A path must lead to a regular file below `root`, or else below
    `folder`, with links resolved, so that rows cannot read other files of this machine; in an object store, to an
    object there. `folder` is None if the table is in none. Data sets of the hub have mappings.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not value:
        return None, ""
    if isinstance(value, bytes):
        return value, ""
    if not isinstance(value, str):
        return None, f"the image is a {type(value).__name__}, neither bytes nor a path"
    if folder is None:
        return b"", f"the image is the path {value!r}, and the table lies in no folder"
    root = root or folder
    if not folder.is_local:
        return _stored_picture(value, folder, root)
    try:
        path, root_path = Path(folder.path, value).resolve(), Path(root.path).resolve()
        if not path.is_relative_to(root_path):
            return b"", f"image file {value!r} does not lie below {str(root_path)!r}; an image root may allow more"
        return _regular_file(path), ""
    except (OSError, ValueError, RuntimeError) as error:  # an impossible path; a loop of links
        return b"", f"no image file {value!r}: {getattr(error, 'strerror', None) or error}"


def _stored_picture(value: str, folder: Location, root: Location) -> tuple[bytes | None, str]:
    path = posixpath.normpath(posixpath.join(folder.path, value))
    if not path.startswith(f"{root.path.rstrip('/')}/"):
        return b"", f"image file {value!r} does not lie below {str(root)!r}; an image root may allow more"
    location = Location(path, folder.store)
    try:
        with naming_location(location), location.open_at() as file:
            return file.read(), ""
    except DataError as error:
        return b"", f"no image file {value!r}: {error.what}"


def _regular_file(path: Path) -> bytes:
    """The content of a regular file; ValueError for anything else, which might block or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)  # its links are resolved
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        return file.read()


def num_pixels(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Width times height, from the header only. Raises PictureError for a picture that will not be decoded."""
    return _decode(data, lambda image: image.width * image.height, max_pixels)


def picture_fault(data: bytes) -> str | None:
    """Why a picture cannot be used; None if it can. Detects a damaged end without keeping any pixels."""

    def check(image: Image.Image) -> None:
        if image.format == "PNG":
            image.verify()  # the checksums of its chunks: much cheaper than its pixels
        else:
            image.draft(None, (1, 1))
            image.load()

    try:
        _decode(data, check)
    except PictureError as error:
        return str(error)
    return None


def upright(data: bytes) -> Image.Image:
    """The whole picture in three channels: upright, on white, the first frame of several. Raises PictureError."""
    return _decode(data, lambda image: _rgb(ImageOps.exif_transpose(image)))


def square(data: bytes, side: int) -> np.ndarray:
    """The whole picture, squeezed to a square, uint8 [S, S, 3]: upright, on white, the first frame of several.

    Raises PictureError.
    """

    def squeezed(image: Image.Image) -> np.ndarray:
        image.draft(None, (side, side))  # JPEG can be decoded at an eighth of its size, at an eighth of the cost
        upright_image = _rgb(ImageOps.exif_transpose(image))
        resized = upright_image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(resized, dtype=np.uint8)

    return _decode(data, squeezed)


def with_square(content: Content, side: int) -> Content:
    """The content with its picture read, as `square` does; once. Raises PictureError."""
    if content.pixels is not None:
        return content
    return replace(content, pixels=square(content.image, side))


def squares(inputs: Sequence[Content], side: int) -> np.ndarray:
    """The pictures of all inputs, uint8 [N, S, S, 3]. Raises UnreadableError for inputs without a usable picture."""
    pixels = [content.pixels for content in read_all(inputs, lambda content: with_square(content, side))]
    return np.stack(pixels) if pixels else np.empty((0, side, side, 3), dtype=np.uint8)  # type: ignore[arg-type]  # read


def read_all(inputs: Sequence[Content], read: Callable[[Content], T]) -> list[T]:
    """The results of `read` for all inputs. Raises UnreadableError for those with a PartError."""
    results, faults = read_readable(inputs, read)
    if faults:
        raise UnreadableError(faults)
    return results


def read_readable(inputs: Sequence[Content], read: Callable[[Content], T]) -> tuple[list[T], dict[int, str]]:
    """The results of `read` for the readable inputs, in order, and the faults of the others by position."""
    results, faults = [], {}
    for position, content in enumerate(inputs):
        try:
            results.append(read(content))
        except PartError as error:
            faults[position] = str(error)
    return results, faults


def _decode(data: bytes, read: Callable[[Image.Image], T], max_pixels: int = MAX_PIXELS) -> T:
    """The result of `read` on the opened picture; any exception of its decoder becomes a PictureError."""
    try:
        with _open(data, max_pixels) as image:
            return read(image)
    except PictureError:
        raise
    except Exception as error:  # decoders raise every kind of exception on untrusted bytes
        raise PictureError(_reason(error)) from error


def _open(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture with its header read and no pixels decoded."""
    if not data:
        raise PictureError("there is no image")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"the image has more than {max_pixels:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureError(f"not an image of a known kind ({', '.join(FORMATS)})") from None
    if image.width * image.height > max_pixels:
        raise PictureError(f"the image has {image.width} x {image.height} pixels, more than {max_pixels:,}")
    if (image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg") and (
        num_scans := data.count(b"\xff\xda")
    ) > MAX_SCANS:
        raise PictureError(f"the image has {num_scans} scans, more than {MAX_SCANS}")
    return image


def _rgb(image: Image.Image) -> Image.Image:
    """Three channels of 8 bits, transparency over white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # `convert` would clip at 255
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _reason(error: Exception) -> str:
    return f"the image is damaged: {' '.join(str(error).split())[:200] or type(error).__name__}"

"""The table of all picture assets, `pictures.parquet`, so that one source reads them all."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

PICTURES = "pictures.parquet"
MAX_PIXELS = 20_000_000
MAX_SIDE = 256  # no encoder here reads finer pictures; the originals would fill the disk

_ROWS_PER_GROUP = 2048
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("task", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)


@dataclass(frozen=True)
class Picture:
    """One row. `image` is an encoded picture, `text` its caption; `group` and `split` are empty where there is none."""

    id: str
    image: bytes
    text: str
    label: str
    task: str
    group: str = ""
    split: str = ""


def write_pictures(pictures: Iterable[Picture], target: Path) -> None:
    """Write the table into the folder `target`, ordered by id, without columns that are empty throughout."""
    rows = [asdict(picture) for picture in sorted(pictures, key=lambda picture: picture.id)]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    empty = [name for name in ("text", "group", "split") if not any(row[name] for row in rows)]
    pq.write_table(table.drop_columns(empty), target / PICTURES, row_group_size=_ROWS_PER_GROUP)


def shrunk(image: bytes) -> bytes | None:
    """The picture with no side longer than MAX_SIDE: as it is where it fits, else scaled down and written as PNG.

    None for what is no picture, and for one that its header says has more than MAX_PIXELS; that one is never decoded.
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
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()

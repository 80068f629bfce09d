"""A picture is made small enough to keep, or refused by its header."""

from __future__ import annotations

import io
import struct

from PIL import Image

from jobs.assets.pictures import MAX_SIDE, shrunk
from tests.jobs.assets.conftest import png


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

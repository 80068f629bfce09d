"""Any picture becomes the same pixels wherever it is read, and bytes that are none become a reason, never a crash."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kcm.inputs.content import Content, UnreadableError
from kcm.inputs.location import Location
from kcm.inputs.pictures import PictureError, num_pixels, picture_fault, picture_of, square, squares

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def two_halves(mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    return image.convert(mode)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        encoded(two_halves()),
        encoded(two_halves("P")),
        encoded(two_halves(), "BMP"),
        encoded(two_halves(), "WEBP", lossless=True),
        encoded(two_halves("CMYK"), "TIFF"),
        encoded(two_halves("CMYK"), "JPEG", quality=100),
        encoded(two_halves(), "JPEG", quality=100),
        encoded(two_halves("RGBA")),
    ],
    ids=["png", "palette", "bmp", "webp", "cmyk tiff", "cmyk jpeg", "jpeg", "rgba"],
)
def test_a_picture_is_the_same_in_every_format_and_mode(data: bytes) -> None:
    pixels = square(data, 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[:, 1].astype(int), [RED] * 8, atol=12)
    np.testing.assert_allclose(pixels[:, 6].astype(int), [BLUE] * 8, atol=12)
    assert picture_fault(data) is None


def test_what_is_transparent_becomes_white() -> None:
    image = two_halves("RGBA")
    image.paste((0, 0, 0, 0), (32, 0, 64, 32))
    assert square(encoded(image), 8)[0, [1, 6]].tolist() == [list(RED), list(WHITE)]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    assert square(encoded(palette, transparency=0), 2)[0].tolist() == [list(WHITE), list(RED)]


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is left in the file is on top
    turned = square(encoded(two_halves(), exif=exif), 8)
    assert turned[[1, 6]].tolist() == [[list(RED)] * 8, [list(BLUE)] * 8]


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert square(data, 1).tolist() == [[list(RED)]]
    assert picture_fault(data) is None


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    assert square(encoded(grey), 1).tolist() == [[[128, 128, 128]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "there is no image"),
        (b"A picture is due here.", "not an image of a known kind"),
        (encoded(two_halves())[:90], "the image is damaged"),
        (encoded(two_halves(), "JPEG")[:-400], "the image is damaged"),
        (bomb(50_000, 50_000), "the image has more than 20,000,000 pixels"),
        (bomb(5_000, 4_001), "5000 x 4001 pixels, more than 20,000,000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image of a known kind"),
    ],
    ids=["nothing", "text", "cut png", "cut jpeg", "bomb", "just too large", "a program"],
)
def test_what_is_no_usable_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        square(data, 8)
    found = picture_fault(data)
    assert found is not None
    assert reason in found


def test_a_jpeg_of_very_many_scans_is_not_decoded() -> None:
    data = encoded(two_halves(), "JPEG", progressive=True)
    scan = data[data.rfind(b"\xff\xda") : -2]
    few, many = (data[:-2] + scan * number + data[-2:] for number in (20, 100))
    assert picture_fault(few) is None
    for use in (lambda: num_pixels(many), lambda: square(many, 8)):
        with pytest.raises(PictureError, match=r"the image has 1\d\d scans, more than 100"):
            use()


def test_the_header_tells_how_many_pixels_there_are() -> None:
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    assert [num_pixels(encoded(two_halves(), kind)) for kind in kinds] == [64 * 32] * len(kinds)
    assert num_pixels(bomb(5_000, 4_000)) == 20_000_000  # though there are none
    with pytest.raises(PictureError, match="5000 x 4001 pixels"):
        num_pixels(bomb(5_000, 4_001))


def test_every_unreadable_input_is_named_by_its_position() -> None:
    good = Content(image=encoded(two_halves()))
    with pytest.raises(UnreadableError, match="2 inputs cannot be read, input 1: there is no image") as caught:
        squares([good, Content("a text"), good, Content(image=b"?")], 4)
    assert sorted(caught.value.faults) == [1, 3]
    assert squares([], 4).shape == (0, 4, 4, 3)


def test_picture_cell_is_bytes_path_or_both(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"file")
    folder = Location.of(tmp_path)
    for cell in ("a.png", str(tmp_path / "a.png"), {"bytes": None, "path": "a.png"}):
        assert picture_of(cell, folder) == (b"file", "")
    for cell in (b"own", {"bytes": b"own", "path": "a.png"}):
        assert picture_of(cell, folder) == (b"own", "")
    assert [picture_of(cell, folder) for cell in (None, "", b"")] == [(None, "")] * 3
    assert picture_of("b.png", folder) == (b"", "no image file 'b.png': No such file or directory")
    assert picture_of(5, folder) == (None, "the image is a int, neither bytes nor a path")


def test_a_path_may_not_lead_out_of_the_root(tmp_path: Path) -> None:
    table, shared = tmp_path / "table", tmp_path / "shared"
    where = Location.of(table)
    table.mkdir()
    shared.mkdir()
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (shared / "a.png").write_bytes(b"file")
    (table / "link.png").symlink_to(tmp_path / "secret.txt")
    (table / "loop.png").symlink_to(table / "loop.png")
    for cell in ("../secret.txt", str(tmp_path / "secret.txt"), "link.png", {"path": "../secret.txt"}):
        picture, reason = picture_of(cell, where)
        assert picture == b""
        assert f"does not lie below '{table}'" in reason
    assert picture_of("../shared/a.png", where)[0] == b""
    assert picture_of("../shared/a.png", where, Location.of(shared)) == (b"file", "")
    assert picture_of("../shared/a.png", where, Location.of(tmp_path)) == (b"file", "")
    assert picture_of("loop.png", where)[1].startswith("no image file 'loop.png': ")
    assert picture_of("a.png", None) == (b"", "the image is the path 'a.png', and the table lies in no folder")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it for reading would wait for a writer
    (tmp_path / "folder").mkdir()
    folder = Location.of(tmp_path)
    assert picture_of("pipe", folder) == (b"", "no image file 'pipe': it is not a regular file")
    assert picture_of("folder", folder)[1].startswith("no image file 'folder': ")
    assert picture_of("/dev/zero", folder, Location.of("/")) == (
        b"",
        "no image file '/dev/zero': it is not a regular file",
    )

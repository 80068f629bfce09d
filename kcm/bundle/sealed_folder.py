"""A sealed folder: JSON, text and safetensors files, and a manifest whose hashes are checked before a file is read.

It holds no pickles, appears atomically, and never changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kcm.assets.manifest import sha256_of
from kcm.config import ConfigT, parse_config
from kcm.errors import ArtefactError

MAX_MANIFEST = 2**20  # bytes; a manifest has one line per file
MAX_JSON = 2**24  # bytes; 100,000 label names take about 4 MB
MAX_BYTES = 2**32  # bytes of all files together; hashing them takes seconds
_TENSOR = "$tensor"  # in a state's JSON, refers to a tensor of the safetensors file


class SealedFolder:
    """The files of a sealed folder. Raises ArtefactError for a file whose hash differs from the manifest."""

    def __init__(self, folder: Path, manifest: str, format_version: int) -> None:
        self.folder = folder
        text = read_manifest(folder, manifest)
        self.digest = hashlib.sha256(text).hexdigest()
        try:
            content = json.loads(text)
            format_name, self.files = content["format"], dict(content["files"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ArtefactError("the manifest is damaged", where=str(folder / manifest)) from None
        if format_name != format_version:
            raise ArtefactError(
                f"written in format {format_name!r}, this version reads {format_version}",
                where=str(folder / manifest),
                hint="Write the bundle again with this version",
            )
        self._verify()

    def has(self, name: str) -> bool:
        """Whether the folder holds a file of this name."""
        return name in self.files

    def json(self, name: str) -> Any:
        """The content of a JSON file."""
        try:
            path = self._path(name)
            if path.stat().st_size > MAX_JSON:
                raise ValueError(f"it has more than {MAX_JSON >> 20} MiB")
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"not JSON that can be read: {error}", where=str(self.folder / name)) from None

    def mapping(self, name: str) -> dict[str, Any]:
        """The content of a JSON file that holds an object."""
        if isinstance(content := self.json(name), dict):
            return content
        raise ArtefactError("not a JSON object", where=str(self.folder / name), hint="Fetch the bundle again")

    def num_bytes(self, name: str) -> int:
        """The size of a file; 0 without one."""
        return self._path(name).stat().st_size if self.has(name) else 0

    def config(self, model: type[ConfigT], name: str) -> ConfigT:
        """A JSON file as the configuration model that wrote it."""
        return parse_config(model, self.mapping(name), where=str(self.folder / name))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file."""
        try:
            return load_file(self._path(name))
        except SafetensorError as error:
            raise ArtefactError(f"not a safetensors file: {error}", where=str(self.folder / name)) from None

    def matrix(self, file: str, name: str, num_columns: int) -> Tensor:
        """A tensor [N, `num_columns`] of a safetensors file."""
        tensor = self.tensors(file).get(name)
        if tensor is None or tensor.ndim != 2 or tensor.shape[1] != num_columns:
            fault = f"no matrix {name!r} of {num_columns} columns"
            raise ArtefactError(fault, where=str(self.folder / file), hint="Fetch the bundle again")
        return tensor

    def state(self, parent: str) -> dict[str, object]:
        """A nested state by `write_state`."""
        tensors = self.tensors(f"{parent}/state.safetensors") if self.has(f"{parent}/state.safetensors") else {}
        try:
            state = _join(self.json(f"{parent}/state.json"), tensors)
        except (KeyError, TypeError, RecursionError):
            state = None
        if not isinstance(state, dict):
            raise ArtefactError("not a state that can be read", where=str(self.folder / parent / "state.json"))
        return state

    def _path(self, name: str) -> Path:
        if name not in self.files:
            raise ArtefactError("a file is missing from the manifest", where=str(self.folder / name))
        return self.folder / name

    def _verify(self) -> None:
        """Raise ArtefactError for a changed file, and for files too large to hash, such as sparse ones."""
        paths = {name: self._inside(name) for name in self.files}
        total = sum(path.stat().st_size for path in paths.values())
        if total > MAX_BYTES:
            fault = f"its files have {total:,} bytes, a bundle has at most {MAX_BYTES:,}"
            raise ArtefactError(fault, where=str(self.folder), hint="Fetch the bundle again")
        for name, path in paths.items():
            if sha256_of(path) != self.files[name]:
                raise ArtefactError("a file differs from its manifest", where=str(path), hint="Fetch the bundle again")

    def _inside(self, name: str) -> Path:
        path = self.folder / name
        try:
            _require_inside(path, self.folder)
        except OSError:
            raise ArtefactError("a file is missing", where=str(path), hint="Fetch the bundle again") from None
        except ValueError:  # an impossible file name
            fault = f"the manifest lists a file {name!r}, which is not a possible file name"
            raise ArtefactError(fault, where=str(self.folder), hint="Fetch the bundle again") from None
        return path


def read_manifest(folder: Path, manifest: str) -> bytes:
    """The manifest of a sealed folder. Raises ArtefactError if there is no valid one."""
    path = folder / manifest
    try:
        _require_inside(path, folder)
        if path.stat().st_size > MAX_MANIFEST:
            raise ArtefactError(f"the manifest has more than {MAX_MANIFEST} bytes", where=str(path))
        return path.read_bytes()
    except OSError:
        raise ArtefactError(f"no {manifest} here", where=str(folder), hint="Give the folder of a bundle") from None


def _require_inside(path: Path, folder: Path) -> None:
    """Raise ArtefactError unless it is a plain file in the folder: reading a pipe or a device might never end."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ArtefactError("the file lies outside the folder", where=str(path))
    if not stat.S_ISREG(path.stat().st_mode):
        raise ArtefactError("not a plain file", where=str(path), hint="Fetch the bundle again")


@contextmanager
def sealing(folder: Path, manifest: str, format_version: int) -> Iterator[Path]:
    """A draft folder to fill; at the end it is hashed, gets its manifest and is moved to `folder`.

    Raises ArtefactError if `folder` exists.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError("the folder exists already", where=str(folder), hint="Choose a new folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        paths = sorted(path for path in draft.rglob("*") if path.is_file())
        hashes = {path.relative_to(draft).as_posix(): sha256_of(path) for path in paths}
        write_json(draft / manifest, {"format": format_version, "files": hashes})
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file; NaN and infinity are errors, because other JSON readers do not know them."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def write_state(folder: Path, state: Mapping[str, object]) -> None:
    """Write a nested state of tensors, numbers, strings, lists and dicts as JSON plus safetensors.

    Raises TypeError for anything else, which would need a pickle.
    """
    tensors: dict[str, Tensor] = {}
    plain = _split(state, "", tensors)
    folder.mkdir()
    write_json(folder / "state.json", plain)
    if tensors:
        write_tensors(folder / "state.safetensors", tensors)


def _split(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """`value` with every tensor replaced by a reference to its entry in `tensors`."""
    if isinstance(value, Tensor):
        name = f"{len(tensors)}.{path}"  # numbered, because a key may contain a dot
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and key != _TENSOR for key in value):
            raise TypeError(f"keys of a state must be strings, at {path or 'its root'!r}")
        return {key: _split(child, f"{path}.{key}" if path else key, tensors) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_split(child, f"{path}.{position}", tensors) for position, child in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state may not hold {type(value).__name__}, at {path!r}")


def _join(value: Any, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _join(child, tensors) for key, child in value.items()}
    if isinstance(value, list):
        return [_join(child, tensors) for child in value]
    return value

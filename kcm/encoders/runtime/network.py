"""The frozen network of an encoder in either runtime: named arrays of a batch in, float32 vectors out.

Shapes: B inputs of a batch, D features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from kcm.errors import AssetError

if TYPE_CHECKING:  # a network of ONNX Runtime needs no torch
    from torch import nn

Runtime = Literal["auto", "torch", "onnx"]
Precision = Literal["float32", "bfloat16", "int8"]

Arrays = Mapping[str, np.ndarray]


class Network(Protocol):
    """Vectors of a batch. It may be called from several threads."""

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Float32 [B, D], from arrays whose first dimension is B."""


class TorchNetwork:
    """A module that takes tensors by name and gives vectors, on one device."""

    def __init__(self, module: nn.Module, device: str = "cpu") -> None:
        self._module, self._device = module.to(device).eval(), device

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """See `Network`."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
            vectors_BD: np.ndarray = self._module(**tensors).float().cpu().numpy()
        return vectors_BD


class OnnxNetwork:
    """An exported network in ONNX Runtime, with as many threads as this process was given CPUs.

    Raises AssetError for a file that ONNX Runtime cannot load.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads(), 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes use the cores, too
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has classes of its own for each kind
            reason = " ".join(str(error).split())
            raise AssetError(f"cannot load the exported network: {reason}", where=str(file)) from None
        self._names = {each.name for each in self._session.get_inputs()}

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """See `Network`."""
        known = {name: array for name, array in inputs.items() if name in self._names}
        (vectors_BD,) = self._session.run(None, known)
        found: np.ndarray = vectors_BD
        return found


def num_threads() -> int:
    """`OMP_NUM_THREADS` where it is set, as Ray does from the CPUs of an actor or a replica; else the usable cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))

"""The frozen network of an encoder in torch: loaded, run, and written for ONNX Runtime.

Shapes: B inputs of a batch, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kcm.encoders.config import Arrays
from kcm.errors import AssetError

_OPSET = 17


class TorchNetwork:
    """A module from named tensors to vectors, on one device."""

    def __init__(self, module: nn.Module, device: str = "cpu") -> None:
        self._module, self._device = module.to(device).eval(), device

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """See `Network`."""
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
            vectors_BD: np.ndarray = self._module(**tensors).float().cpu().numpy()
        return vectors_BD


@dataclass(frozen=True)
class Exportable:
    """A network with everything needed to export and check it.

    `module` takes tensors named as in `probes`, which are batches of different sizes. `dynamic` names the axes of any
    length, by input. `files` are the other files that the encoder needs, by name.
    """

    module: nn.Module
    probes: Sequence[Arrays]
    dynamic: Mapping[str, Mapping[int, str]]
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write the network in ONNX. Raises AssetError if it cannot be exported."""
        tensors = {name: torch.from_numpy(array) for name, array in self.probes[0].items()}
        axes = {name: dict(axes) for name, axes in self.dynamic.items()} | {"vectors": {0: "batch"}}
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a warning about tracing; probes of other sizes detect its errors
                torch.onnx.export(
                    self.module.eval(),
                    (),
                    str(file),
                    kwargs=tensors,
                    input_names=list(tensors),
                    output_names=["vectors"],
                    dynamic_axes=axes,
                    opset_version=_OPSET,
                    dynamo=False,
                )
        except Exception as error:  # the exporter raises exceptions of many kinds
            reason = " ".join(str(error).split())[:300]
            raise AssetError(f"the network cannot be exported: {reason}", hint="Use runtime: torch") from error

    def vectors(self) -> list[np.ndarray]:
        """Torch's output for each probe."""
        network = TorchNetwork(self.module)
        return [network(probe) for probe in self.probes]

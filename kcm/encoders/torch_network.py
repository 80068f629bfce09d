"""The frozen network of an encoder in torch: loaded, run, and written for ONNX Runtime.

Shapes: B inputs of a batch, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
from transformers.utils.logging import disable_progress_bar

from kcm.encoders.config import Arrays, Precision
from kcm.errors import AssetError

_OPSET = 17

disable_progress_bar()  # of loading weights; it would break into the bars of the stages


class TorchNetwork:
    """A module that takes tensors by name and gives vectors, on one device."""

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
    """A network and what it takes to export and check it.

    `module` takes tensors by the names of `probes`, batches of different sizes. `dynamic` names the axes that may have
    any length, by input. `files` are what the encoder needs besides, by name.
    """

    module: nn.Module
    probes: Sequence[Arrays]
    dynamic: Mapping[str, Mapping[int, str]]
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write the network in ONNX. Raises AssetError where it cannot be exported."""
        tensors = {name: torch.from_numpy(array) for name, array in self.probes[0].items()}
        axes = {name: dict(axes) for name, axes in self.dynamic.items()} | {"vectors": {0: "batch"}}
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about tracing; what it gets wrong, the probes of other sizes show
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
        except Exception as error:  # the exporter raises whatever it meets
            reason = " ".join(str(error).split())[:300]
            raise AssetError(f"the network cannot be exported: {reason}", hint="Use runtime: torch") from error

    def vectors(self) -> list[np.ndarray]:
        """What torch gives for each probe."""
        network = TorchNetwork(self.module)
        return [network(probe) for probe in self.probes]


def dtype_of(precision: Precision) -> torch.dtype:
    """The dtype of a module in torch; int8 is made of an export in float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def loading(model_path: Path) -> Iterator[None]:
    """A block that loads a model from a folder: AssetError where that is not possible."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"cannot load the model: {' '.join(str(error).split())}", where=str(model_path)) from None


def load_backbone(model_path: Path) -> Any:
    """The model of a folder; of T5 its encoder. Raises what `pretrained` raises."""
    with loading(model_path):
        whole = AutoConfig.from_pretrained(model_path, local_files_only=True)
    kind = AutoModelForTextEncoding if getattr(whole, "is_encoder_decoder", False) else AutoModel
    return pretrained(kind, model_path)


def pretrained(kind: Any, model_path: Path) -> Any:
    """The model of a folder by a class of transformers, with all its weights but a pooler's, which nothing here uses.

    Raises AssetError when transformers cannot load the folder or it lacks weights in safetensors.
    """
    with loading(model_path):
        model, report = kind.from_pretrained(
            model_path, local_files_only=True, output_loading_info=True, use_safetensors=True
        )
    # transformers would only warn, and draw at random what is missing.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise AssetError(f"the model lacks weights, such as {missing[0]!r}", where=str(model_path))
    return model

"""The frozen network of an encoder in ONNX Runtime: named arrays of a batch in, float32 vectors out.

Nothing here imports torch or transformers: a process that answers by an exported network starts without them, in a
quarter of the time. Shapes: B inputs of a batch, D features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from kcm.errors import AssetError

Arrays = Mapping[str, np.ndarray]


class Network(Protocol):
    """Vectors of a batch. It may be called from several threads."""

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Float32 [B, D], from arrays whose first dimension is B."""


class OnnxNetwork:
    """An exported network in ONNX Runtime, with as many threads as this process was given CPUs.

    Raises AssetError for a file that ONNX Runtime cannot load.
    """

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads(), 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes use the cores, too
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has classes of its own for each kind
            reason = " ".join(str(error).split())
            raise AssetError(f"cannot load the exported network: {reason}", where=str(file)) from None
        self._names = {value.name for value in self._session.get_inputs()}

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

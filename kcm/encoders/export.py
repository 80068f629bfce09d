"""Networks exported for ONNX Runtime: once into the assets, keyed by everything that determines their output.

    ASSETS/.onnx/KEY/network.onnx    with the other files that the encoder needs
                    /asset.json      hashes, versions at export, and the distance from torch

An export is used only if it agrees with torch on a batch of probes: no coordinate of the unit vectors may differ by
more than `TOLERANCE`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcm.assets.manifest import is_intact, make_once
from kcm.encoders.config import Arrays
from kcm.errors import AssetError
from kcm.extras import require

if TYPE_CHECKING:  # an exported network needs no torch
    from kcm.encoders.torch_network import Exportable


class OnnxNetwork:
    """An exported network in ONNX Runtime, with as many threads as this process has CPUs.

    Raises AssetError for a file that ONNX Runtime cannot load.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime  # installed with an extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads(), 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes use the cores too
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has classes of its own for each kind
            reason = " ".join(str(error).split())
            raise AssetError(f"cannot load the exported network: {reason}", where=str(file)) from None
        self._names = {value.name for value in self._session.get_inputs()}

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """See `Network`."""
        arrays = {name: array for name, array in inputs.items() if name in self._names}
        (vectors_BD,) = self._session.run(None, arrays)
        return vectors_BD


def num_threads() -> int:
    """`OMP_NUM_THREADS` if set (Ray sets it from the CPUs of an actor or a replica), or else the usable cores."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) else len(os.sched_getaffinity(0))


NETWORK = "network.onnx"
TOLERANCE = 1e-5

_VERSION = 4  # version of the export's format


def exported(identity: str, assets_dir: Path, make: Callable[[], Exportable]) -> Path:
    """The folder of the export for the encoder `identity`; `make` creates a missing one.

    Raises AssetError if the network cannot be exported, differs from torch, or the assets are not writable, and
    MissingExtraError without ONNX Runtime.
    """
    for module in ("onnx", "onnxruntime"):
        require(module, "an encoder in ONNX Runtime")
    import onnxruntime

    facts = {"identity": identity, "version": _VERSION, "onnxruntime": onnxruntime.__version__}
    folder = assets_dir / ".onnx" / hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:32]

    def export(draft: Path) -> tuple[list[str], dict[str, object]]:
        network, file = make(), draft / NETWORK
        network.write(file)
        distance = _distance(network, file, folder)
        for name, text in network.files.items():
            (draft / name).write_text(text, encoding="utf-8")
        return [path.name for path in draft.iterdir()], {**facts, "largest_difference": distance}

    try:
        return make_once(folder, is_intact, export)
    except OSError as error:
        raise AssetError(
            f"cannot write the exported network: {error.strerror or error}",
            where=str(folder),
            hint="Make the assets writable once, or use runtime: torch",
        ) from None


def _distance(network: Exportable, file: Path, folder: Path) -> float:
    """The distance of the export from torch on the probes. Raises AssetError if it is too large."""
    export = OnnxNetwork(file)
    pairs = zip(network.probes, network.vectors(), strict=True)
    largest = max(float(np.abs(export(probe) - exact_BD).max()) for probe, exact_BD in pairs)
    if not largest <= TOLERANCE:
        raise AssetError(
            f"the exported network differs from torch by {largest:.1e}, more than the allowed {TOLERANCE:.0e}",
            where=str(folder),
            hint="Use runtime: torch",
        )
    return largest

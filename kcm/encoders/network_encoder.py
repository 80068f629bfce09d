"""Encoders that compute vectors with one network, in batches. Shapes: N inputs, D features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcm.encoders.config import Arrays, Network
from kcm.encoders.export import NETWORK, OnnxNetwork, exported
from kcm.encoders.runtime import NetworkEncoderConfig, is_exported
from kcm.inputs.content import PROBE, Content
from kcm.inputs.pictures import read_all

if TYPE_CHECKING:
    from kcm.encoders.torch_network import Exportable


class NetworkEncoder(ABC):
    """A frozen network on one device, in torch or exported. Raises the errors of its configuration's `load`."""

    def __init__(self, config: NetworkEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self.config, self.reads, self.identity = config, config.reads, config.identity(assets_dir)
        self._network: Network
        self.file: Callable[[str], str]  # a file of `Exportable.files`
        if is_exported(config, device):
            folder = exported(self.identity, assets_dir, self.exportable)
            self._network = OnnxNetwork(folder / NETWORK)
            self.file = lambda name: (folder / name).read_text(encoding="utf-8")
        else:
            from kcm.encoders.torch_network import (
                TorchNetwork,  # slow to import, and an exported network needs no torch
            )

            network = self.exportable()
            self._network, self.file = TorchNetwork(network.module, device), network.files.__getitem__
        self.batch_size = config.batch_size
        self.dim: int = self.encode([PROBE]).shape[1]

    def read(self, content: Content) -> Content:
        """See `Encoder`."""
        return content

    @abstractmethod
    def exportable(self) -> Exportable:
        """The network, in float32."""

    @abstractmethod
    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        """A batch of inputs that were read, as the network takes it."""

    def batches(self, inputs: Sequence[Content]) -> list[list[int]]:
        """The positions of all inputs, a list for each batch."""
        positions = range(len(inputs))
        return [list(positions[start : start + self.batch_size]) for start in positions[:: self.batch_size]]

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs. Raises UnreadableError."""
        ready = read_all(inputs, self.read)
        if not ready:
            return np.empty((0, self.dim), dtype=np.float32)
        batches = self.batches(ready)
        parts = [self._network(self.arrays([ready[position] for position in batch])) for batch in batches]
        features_ND = np.empty((len(ready), parts[0].shape[1]), dtype=np.float32)
        features_ND[np.concatenate(batches)] = np.concatenate(parts)
        return features_ND

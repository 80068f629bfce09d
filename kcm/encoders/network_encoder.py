"""Encoders that compute vectors with one network, in batches. Shapes: N inputs, D features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kcm.encoders.config import Arrays, Network
from kcm.encoders.export import NETWORK, OnnxNetwork, exported
from kcm.encoders.runtime import NetworkEncoderConfig, is_exported
from kcm.encoders.torch_network import Exportable, TorchNetwork
from kcm.inputs.content import PROBE, Content
from kcm.inputs.pictures import read_all


class NetworkEncoder(ABC):
    """A frozen network on one device, in torch or exported. Raises the errors of its configuration's `load`."""

    def __init__(self, config: NetworkEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self.config, self.reads, self.identity = config, config.reads, config.identity(assets_dir)
        self._network: Network
        if is_exported(config, device):
            folder = exported(self.identity, config.precision, assets_dir, self.exportable)
            self._network = OnnxNetwork(folder / NETWORK)
        else:
            self._network = TorchNetwork(self.exportable().module, device)
        # Dynamic int8 quantisation has one scale per call: with one input per call, vectors depend on no other input.
        self._batch_size = 1 if config.precision == "int8" else config.batch_size
        self.dim: int = self.encode([PROBE]).shape[1]

    def read(self, content: Content) -> Content:
        """See `Encoder`."""
        return content

    @abstractmethod
    def exportable(self) -> Exportable:
        """The network in the precision of the configuration."""

    @abstractmethod
    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        """A batch of inputs that were read, as the network takes it."""

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs. Raises UnreadableError."""
        ready = read_all(inputs, self.read)
        starts = range(0, len(ready), self._batch_size)
        parts = [self._network(self.arrays(ready[start : start + self._batch_size])) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

"""A door that computes next to nothing and hands every item on to the large model, and the encoder that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide
from kcm.encoders import Encoder
from kcm.inputs.content import Content, Part
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.deploy.door import Door
from pipelines.serve.release import Release


class StubEncoder:
    """Encodes nothing: every text has the same features, ready at once."""

    identity = "stub"
    reads: frozenset[Part] = frozenset({"text"})

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._features_D = np.full(dim, dim**-0.5, np.float32)

    def read(self, content: Content) -> Content:
        """The content itself."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """The same unit vector for each input, float32 [N, dim]."""
        return np.tile(self._features_D, (len(inputs), 1))


class EscalatesAll(SmallSide):
    """A small side that hands every input on, without looking at it."""

    def judge_features(
        self, features_ND: NDArray[np.float32], inputs: Sequence[Input], encoded_s: float
    ) -> list[Judgement]:
        """Judgements that keep nothing."""
        count = len(self.bundle.label_names)
        nothing = Judgement(0, np.full(count, 1 / count), 1 / count, -1e9, np.inf, False, 0.0, np.zeros(1, np.float32))
        return [nothing] * len(inputs)


class LoaderToLarge(VersionLoader):
    """Loads versions that hand every item on to the large model, and have no encoder."""

    def _encoder_of(self, bundle: Bundle, release: Release, read: Callable[[Content], Content]) -> Encoder:
        return StubEncoder(bundle.collaborator.in_features)

    def _small_side(self, bundle: Bundle, encoder: Encoder) -> SmallSide:
        return EscalatesAll(bundle, encoder, top_k=self._config.top_k)


class DoorToLarge(Door.func_or_class):  # type: ignore[name-defined, misc]
    """The door of the large model alone: the same interface."""

    loader_class = LoaderToLarge

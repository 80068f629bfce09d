"""The encoder in its own replicas, for encoders on GPUs: the door needs no GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import load_encoder
from kcm.bundle.runtime import probe_of
from kcm.encoders import Encoder
from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.redact import redact_logger
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.config import ReplicaConfig
from pipelines.serve.release import Release, ReleaseCache
from pipelines.serve.sources import Source


class EncoderFailedError(Exception):
    """The encoder's replicas returned no features."""


@serve.deployment(name="encoder")
class EncoderReplica:
    """Encodes the batches that doors send; loads the first release of `source` at the start, others on demand."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, source: Source, config: ReplicaConfig, assets_dir: Path
    ) -> None:
        self._source, self._config, self._assets_dir = source, config, assets_dir
        self._encoders = ReleaseCache(self._load)
        self._by_identity: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
        redact_logger("ray.serve")
        await self._encoders.get(await asyncio.to_thread(source.first))

    async def encode(self, contents: list[Content], release: Release, identity: str) -> np.ndarray:
        """Features, float32 [N, D], from the encoder of `release` or of a release with the same `identity`.

        Raises UnreadableError if any content cannot be read.
        """
        encoder = self._by_identity.get(identity) or await self._encoders.get(release)
        return await asyncio.to_thread(encoder.encode, contents)

    async def _load(self, release: Release) -> Encoder:
        bundle = await asyncio.to_thread(Bundle.read, await asyncio.to_thread(self._source.folder, release))
        bundle = bundle.in_runtimes(self._config.runtime, None)
        if loaded_encoder := self._by_identity.get(bundle.encoder_identity):
            return loaded_encoder
        encoder = await asyncio.to_thread(load_encoder, bundle, self._assets_dir, self._config.device)
        await asyncio.to_thread(encoder.encode, [probe_of(bundle)])  # the first call takes longer than any other
        return self._by_identity.setdefault(encoder.identity, encoder)


class RemoteEncoder:
    """The encoder of a release, called over Ray from the thread that computes batches, never from an event loop.

    Pictures are read here with `read` before they are sent, so an unreadable picture never gets into a batch. A failed
    call is retried once, by another replica if there is one.
    """

    def __init__(
        self,
        replicas: DeploymentHandle[Any],
        release: Release,
        bundle: Bundle,
        timeout_s: float,
        read: Callable[[Content], Content],
    ) -> None:
        self._replicas, self._release, self._timeout_s = replicas, release, timeout_s
        self.read = read
        self.dim, self.identity, self.reads = bundle.collaborator.in_features, bundle.encoder_identity, bundle.reads

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Features, float32 [N, dim].

        Raises UnreadableError, QueueFullError if no replica has room, and EncoderFailedError.
        """
        try:
            return self._attempt(inputs)
        except EncoderFailedError:
            return self._attempt(inputs)

    def _attempt(self, inputs: Sequence[Content]) -> np.ndarray:
        response: Any = self._replicas.encode.remote(list(inputs), self._release, self.identity)
        try:
            features_ND: np.ndarray = response.result(timeout_s=self._timeout_s)
        except BackPressureError:
            raise QueueFullError("the encoder's replicas have no room for more") from None
        except RayTaskError as error:
            if isinstance(error.cause, DataError):
                raise error.cause from None
            raise EncoderFailedError(type(error.cause).__name__) from error
        except (RayError, RayServeException) as error:
            raise EncoderFailedError(type(error).__name__) from error
        except TimeoutError:
            response.cancel()  # giving up waiting does not stop the remote call
            raise EncoderFailedError(f"no features within {self._timeout_s:g} s") from None
        return features_ND

"""The encoder behind a scripted deployment handle: what the door makes of features and of each fault."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from kcm.encoders import encode_readable
from kcm.inputs.content import IMAGE, TEXT, Content, Part
from kcm.inputs.pictures import PictureError
from pipelines.serve.cascade.models.encoder import EncoderFailedError, RemoteEncoder
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.release import Release

INPUTS = [Content("a"), Content("b")]
RELEASE = Release(version="5", bundle="/bundle")  # type: ignore[arg-type]
FEATURES = np.ones((2, 3), np.float32)
DIED = RayActorError(actor_id="1")


class Replicas:
    """A handle whose calls end in one way after the other."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.asked: list[tuple[list[Content], Release]] = []
        self.num_cancelled = 0
        self.encode = self

    def remote(self, inputs: list[Content], release: Release, identity: str) -> Replicas:
        self.asked.append((inputs, release))
        return self

    def result(self, timeout_s: float) -> np.ndarray:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self) -> None:
        self.num_cancelled += 1


def read(content: Content) -> Content:
    if not content.image:
        raise PictureError("there is no image")
    return replace(content, pixels=np.zeros(1))


def encoder_over(replicas: Any, reads: frozenset[Part] = TEXT) -> RemoteEncoder:
    bundle: Any = SimpleNamespace(collaborator=SimpleNamespace(in_features=3), encoder_identity="abc", reads=reads)
    return RemoteEncoder(replicas, RELEASE, bundle, timeout_s=1.0, read=read)


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("encode", "a traceback", cause)


def test_features_come_from_the_release_that_the_door_serves() -> None:
    replicas = Replicas(FEATURES)
    encoder = encoder_over(replicas)
    assert encoder.encode(INPUTS) is FEATURES
    assert replicas.asked == [(INPUTS, RELEASE)]
    assert (encoder.dim, encoder.identity, encoder.reads) == (3, "abc", TEXT)


@pytest.mark.parametrize("fault", [DIED, task_error(MemoryError("full")), TimeoutError()])
def test_failed_replica_costs_no_answer_if_another_works(fault: Exception) -> None:
    """Promise: a call that failed is made once more; one that took too long is taken back before."""
    replicas = Replicas(fault, FEATURES)
    assert encoder_over(replicas).encode(INPUTS) is FEATURES
    assert replicas.num_cancelled == isinstance(fault, TimeoutError)


def test_no_third_call_is_made() -> None:
    replicas = Replicas(DIED, DeploymentUnavailableError(None), FEATURES)  # type: ignore[arg-type]
    with pytest.raises(EncoderFailedError, match="DeploymentUnavailableError"):
        encoder_over(replicas).encode(INPUTS)


def test_full_replicas_are_not_asked_again() -> None:
    replicas = Replicas(BackPressureError(num_queued_requests=1, max_queued_requests=1), FEATURES)
    with pytest.raises(QueueFullError):
        encoder_over(replicas).encode(INPUTS)
    assert len(replicas.asked) == 1


def test_pictures_are_read_before_sending() -> None:
    """Promise: pictures are read before they are sent and what cannot be read stays here."""
    replicas = Replicas(FEATURES[:1])
    features, faults = encode_readable(encoder_over(replicas, IMAGE), [Content(image=b"1"), Content("a text")])
    assert (len(features), faults) == (1, {1: "there is no image"})
    (((sent,), _),) = replicas.asked
    assert sent.pixels is not None

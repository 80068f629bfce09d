"""What is attacked: HTTP replicas around stub encoders that count the damage, and an upstream that obeys texts."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from fastapi import FastAPI
from numpy.typing import NDArray
from ray import serve

from benchmarks.machine import free_port
from benchmarks.serve_sites import StubEncoder, started
from benchmarks.upstream import Reply, labelled, upstream
from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_encoder
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.config import parse_config
from kcm.encoders import Encoder
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from kcm.learners.bounds import FinetuneConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.config import TOP_K, ServeConfig
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.deploy.http_replica import HttpReplica
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource

LABELS = ("bad", "good")
KEYS = {name: f"key-of-{name}" for name in ("ann", "eve", *(f"caller{number}" for number in range(50)))}
MEASURED = "/measured"  # what the HTTP replica has suffered
TICK_S = 0.001

Kind = Literal["text", "no keys", "pictures", "audited"]


class Suffering:
    """The longest block of an event loop, and the resources of the HTTP replica's process."""

    def __init__(self) -> None:
        self._block_s, self._ticking = 0.0, None

    async def figures(self, begin: bool = False) -> dict[str, float]:
        """Longest block in ms since a call that was to `begin`, and CPU seconds by now."""
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        block_s, times = self._block_s, psutil.Process().cpu_times()
        if begin:
            self._block_s = 0.0
        return {"block_ms": 1000 * block_s, "cpu_s": times.user + times.system}

    async def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self._block_s = max(self._block_s, time.perf_counter() - before - TICK_S)


class Sorting(SmallSide):
    """Escalates the texts that say `escalate`, and is sure of the label `good` for all others."""

    def judge_features(
        self, features_ND: NDArray[np.float32], inputs: Sequence[Input], encoded_s: float
    ) -> list[Judgement]:
        """One judgement per input; features are computed and left alone."""
        return [
            replace(
                judgement, label=1, probabilities_C=np.array([0.1, 0.9]), keeps="escalate" not in example.content.text
            )
            for example, judgement in zip(inputs, super().judge_features(features_ND, inputs, encoded_s), strict=True)
        ]


class AttackedLoader(VersionLoader):
    """Loads versions around a small side that sorts by the text."""

    def _encoder_of(self, bundle: Bundle) -> Encoder:
        if "image" in bundle.reads:
            return load_encoder(bundle, self._assets_dir)
        return StubEncoder(bundle.collaborator.in_features)

    def _small_side(self, bundle: Bundle, encoder: Encoder) -> SmallSide:
        return Sorting(bundle, encoder, top_k=TOP_K)


class AttackedReplica(HttpReplica.func_or_class):  # type: ignore[name-defined, misc]
    """The HTTP replica of such versions, with one path more."""

    loader_class = AttackedLoader

    def __serve_build_asgi_app__(self) -> FastAPI:
        api: FastAPI = super().__serve_build_asgi_app__()
        api.add_api_route(MEASURED, Suffering().figures, include_in_schema=False)
        return api


def replies() -> Callable[[str], Reply]:
    """What becomes of a question, by a word of its text; all others get the label `bad`."""
    by_word = {
        "fail": (500, {}, b"{}"),
        "deep": (200, {}, b"[" * 100_000 + b"]" * 100_000),
        "bomb": (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 400_000_000, 9)),
        "off-list": labelled("nothing of the kind"),
        "agree": labelled("good"),  # as the small side says
    }

    def reply(question: str) -> Reply:
        if "stall" in question:
            time.sleep(50)
        return next((reply_text for word, reply_text in by_word.items() if word in question), labelled("bad"))

    return reply


@dataclass(frozen=True)
class Target:
    """A served HTTP replica, and the configuration that it was started from."""

    url: str
    config: ServeConfig


@contextmanager
def target(kind: Kind) -> Iterator[Target]:
    """An HTTP replica that reads texts or pictures, as `kcm serve` would start it; keys as in KEYS."""
    prepare_environment()
    with upstream(replies()) as base_url, tempfile.TemporaryDirectory() as name, connected(ClusterConfig()):
        folder = Path(name)
        config = serve_config(kind, folder, base_url)
        release = Release(version="films/1", bundle=written(kind, folder, base_url))
        try:
            yield Target(started(AttackedReplica, FixedSource(release), config, folder), config)
        finally:
            serve.shutdown()


def serve_config(kind: Kind, folder: Path, base_url: str) -> ServeConfig:
    """What an operator would write."""
    keys = folder / "keys"
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    keys.write_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()), encoding="utf-8")
    values: dict[str, Any] = {
        "port": free_port(),
        "auth": {} if kind == "no keys" else {"keys_file": str(keys)},
        "feedback": {"url": f"sqlite:///{folder / 'feedback.db'}"},
        "large": {
            "attempt_timeout_s": 5.0,
            "timeout_s": 12.0,
            "upstreams": [{"base_url": base_url, "api_key_env": None}],
        },
        "audit": {"share": 1.0 if kind == "audited" else 0.0},
    }
    return parse_config(ServeConfig, values)


def written(kind: Kind, folder: Path, base_url: str) -> Path:
    """A bundle in a new folder whose large model is asked at `base_url`."""
    encoder: Any = PixelsConfig(side=24) if kind == "pictures" else TextEncoderConfig(model=str(_nothing(folder)))
    model = OpenAiConfig(base_url=base_url, model="m", api_key_env=None, max_retries=0, timeout_s=60)
    dim = 24 * 24 * 3 if kind == "pictures" else 8
    bundle = Bundle(
        collaborator=Collaborator(dim, len(LABELS), NetworkConfig(), "kan", seed=0).requires_grad_(False),
        seed=0,
        label_names=LABELS,
        task_names=("films",),
        encoder=encoder,
        encoder_identity=encoder.identity(folder),
        large=model,
        large_identity=openai_identity(model, LABELS),
        policy=Policy(),
        learner=FinetuneConfig(),
    )
    return bundle.write(Path(tempfile.mkdtemp(dir=folder)) / "bundle")


def _nothing(folder: Path) -> Path:
    """A folder with the files of an encoder that is never loaded."""
    model = folder / "encoder"
    model.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}", encoding="utf-8")
    return model

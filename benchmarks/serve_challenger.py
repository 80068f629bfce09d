"""What a challenger in the shadow costs: CPU of a kept item with one against without, in the service, without HTTP.

    python benchmarks/serve_challenger.py

A MiniLM encoder, collaborators of the default size, and a log in SQLite; one text after the other, and 32 at once. The
ways take turns, since the speed of a machine changes. Swaps under load: KCM_RELEASE_CHANGES=50,20 pytest -n0
tests/integration/serving/test_challenger_served.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import load_encoder
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certify.monitoring.drift import DriftReference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.large import ClassifierConfig
from kcm.learners import FinetuneConfig
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.drift import Drift
from pipelines.serve.cascade.models.judging import Judging
from pipelines.serve.cascade.models.pictures import PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import FeedbackConfig, ServeConfig
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.entries import Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Challenger, Release

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXT = "The camera is light and the pictures are sharp, but the battery does not last for an afternoon of walking."
ROUNDS, PER_ROUND, AT_ONCE = 5, 96, (1, 32)
WAYS = ("bare", "log", "log and drift", "log, drift and shadow")


class Silent:
    """Counts nothing; it stands in for metrics, and for a large model that nobody asks."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

    async def probe(self, timeout_s: float) -> None:
        """It is always there."""

    async def ask(self, items: Any, timeout_s: float) -> list[Any]:
        """Nothing is escalated."""
        return []


def bundle_of(seed: int, encoder: TextEncoderConfig, identity: str) -> Bundle:
    """A bundle that keeps everything; its networks are as large as trained ones."""
    rng = np.random.default_rng(seed)
    features_ND = rng.normal(size=(2000, 384)).astype(np.float32)
    keeps_N, labels_N = np.ones(2000, dtype=bool), rng.integers(0, 2, 2000)
    return Bundle(
        collaborator=Collaborator(384, 2, NetworkConfig(), "kan", seed).requires_grad_(False),
        seed=seed,
        label_names=("negative", "positive"),
        task_names=("products",),
        encoder=encoder,
        encoder_identity=identity,
        large=ClassifierConfig(encoder=encoder),
        large_identity="none",
        policy=Policy(decision=KEEP_ALL),
        learner=FinetuneConfig(),
        drift=DriftReference.fit(features_ND, labels_N, 2, keeps_N, ~keeps_N, 0.05),
    )


async def services(assets_dir: Path, folder: Path) -> dict[str, CascadeService]:
    """One service for each way, all around one encoder."""
    config = ServeConfig()
    encoder_config = TextEncoderConfig(model=MINILM, max_length=64)
    identity = encoder_config.identity(assets_dir)
    first, second = (bundle_of(seed, encoder_config, identity) for seed in (0, 1))
    encoder = load_encoder(first, assets_dir)
    pictures = PictureReader(lambda content: content, max_pixels=1, max_waiting=1, num_threads=1)
    metrics: Any = Silent()
    made = {}
    for way in WAYS:
        url = f"sqlite:///{folder}/{way.replace(' ', '-')}.db"
        log = None if way == "bare" else LogWriter(FeedbackConfig(), url, application="bench")
        if log:
            await log.open()

        async def load(
            release: Release, beside: CascadeVersion | None, log: LogWriter | None = log, way: str = way
        ) -> CascadeVersion:
            bundle = replace(first if release.version == "1" else second)
            judging = beside.judging if beside else Judging(encoder, pictures, config)
            large: Any = Silent()
            auditor = drift = None
            if log:
                monitor = Monitor(log, release.version, None, metrics)
                auditor = Auditor(config.audit, bundle.answer_names, large.ask, log, monitor, metrics)
            if "drift" in way and bundle.drift:
                drift = Drift(bundle.drift, release.version, log, metrics)
            side = SmallSide(bundle, judging.encoder)
            return CascadeVersion(side, judging, large, config, release.version, auditor, drift=drift)

        async def exposition() -> str:
            return ""

        service = CascadeService(load, config, Breaker(BreakerConfig()), metrics, log, exposition)
        trial = Challenger(version="2", bundle=folder / "2") if "shadow" in way else None
        await service.stage(Release(version="1", bundle=folder / "1", challenger=trial))
        await service.settled()
        made[way] = service
    return made


async def cpu_ms(service: CascadeService, at_once: int, name: str) -> float:
    """Milliseconds of CPU for each of PER_ROUND items, the writing of the log included."""
    given = [Input(Content(TEXT))]
    started = time.process_time()
    for number in range(PER_ROUND // at_once):
        requests = (service.predict(given, Origin(f"{name}-{number}-{each}", "ann")) for each in range(at_once))
        await asyncio.gather(*requests)
    if service._log:
        await service._log.flush()
    return 1000 * (time.process_time() - started) / PER_ROUND


async def measure(assets_dir: Path) -> dict[str, Any]:
    """The medians over all rounds, and of the ratios within a round."""
    with tempfile.TemporaryDirectory() as folder:
        made = await services(assets_dir, Path(folder))
        found: dict[str, Any] = {}
        for at_once in AT_ONCE:
            rounds = []
            for number in range(-2, ROUNDS):  # the first ones warm up
                order = WAYS if number % 2 else tuple(reversed(WAYS))
                name = f"{at_once}-{number}"
                rounds.append({way: await cpu_ms(made[way], at_once, name) for way in order})
            rounds = rounds[2:]
            found[f"{at_once} at once"] = {
                "cpu_ms": {way: statistics.median(each[way] for each in rounds) for way in WAYS},
                "log": statistics.median(each["log"] / each["bare"] for each in rounds),
                "drift": statistics.median(each["log and drift"] / each["log"] for each in rounds),
                "shadow": statistics.median(each["log, drift and shadow"] / each["log and drift"] for each in rounds),
            }
        return found


def main() -> None:
    """Print what each way costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = asyncio.run(measure(options.assets))
    for name, figures in found.items():
        print(f"{name}: " + ", ".join(f"{way} {ms:.2f} ms" for way, ms in figures["cpu_ms"].items()))
        print(
            "  with against without: " + ", ".join(f"{part} {figures[part]:.3f}" for part in ("log", "drift", "shadow"))
        )
    if options.json:
        options.json.write_text(json.dumps(found | {"machine": machine()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the log costs a kept item, in CPU seconds of the replica that answers it, and how little of it is lost.

    python benchmarks/log_cost.py [--requests 2000] [--rounds 9] [--write]

The service of one replica without HTTP and Ray: an untrained KAN of each side, a policy that keeps everything, requests
of one text from 16 clients at once, SQLite. A kept item without a log is measured with MiniLM. What a log adds is
measured behind an encoder that computes nothing, where it is not lost in the noise of MiniLM: every round measures all
variants in turn, and a figure is the median over rounds of the difference to the same round without a log. CPU seconds
are those of the whole process, writer thread and database included. `lost` counts answers that are not in the log.
`--write` puts the figures into benchmarks/results/log_cost.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine
from rich.console import Console
from rich.table import Table
from serve_stubs import StubEncoder

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.large import ClassifierConfig, Item, LargeAnswer
from kcm.learners import FinetuneConfig
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.models.judging import Judging
from pipelines.serve.cascade.models.pictures import PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import AuditConfig, FeedbackConfig, ServeConfig
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.tables import DECISIONS
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release

RESULT = Path(__file__).parent / "results" / "log_cost.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CLIENTS = 16
WARM_UP = 64  # requests
LABELS = ("bad", "good")


@dataclass(frozen=True)
class Variant:
    """What is logged."""

    name: str
    payloads: str | None  # None: there is no log
    share: float = 0.0


VARIANTS = (
    Variant("without a log", None),
    Variant("decisions", "none"),
    Variant("and texts", "text"),
    Variant("and features", "all"),
    Variant("and audits of 5%", "all", 0.05),
)


class NoMetrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class NoLarge:
    """A large model that is never asked about an escalated item."""

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer]:
        """One label for all."""
        return [LargeAnswer(1) for _ in items]

    async def probe(self, timeout_s: float) -> None:
        """It is there."""


def small_side(assets_dir: Path) -> SmallSide:
    """The small side of a bundle that nobody has trained."""
    encoder = TextEncoderConfig(model=MODEL)
    built = encoder.build(assets_dir, "cpu")
    bundle = Bundle(
        collaborator=Collaborator(built.dim, len(LABELS), NetworkConfig(), "kan", seed=0),
        seed=0,
        label_names=LABELS,
        task_names=("all",),
        encoder=encoder,
        encoder_identity=built.identity,
        large=ClassifierConfig(encoder=encoder),
        large_identity="0" * 64,
        policy=Policy(decision=KEEP_ALL),
        learner=FinetuneConfig(),
    )
    return SmallSide(bundle, built, top_k=5)


def texts(number: int) -> list[str]:
    """Sentences of 10 to 40 words."""
    draw = random.Random(0)
    words = [f"word{draw.randrange(10**4)}" if draw.random() < 0.1 else "the film" for _ in range(1000)]
    return [" ".join(draw.choices(words, k=draw.randint(10, 40))) + str(index) for index in range(number)]


async def cost(side: SmallSide, variant: Variant, inputs: Sequence[Input], folder: Path) -> tuple[float, int]:
    """CPU milliseconds of a request, and how many of the answers are not in the log afterwards."""
    config, metrics = ServeConfig(audit=AuditConfig(share=variant.share)), NoMetrics()
    url = f"sqlite:///{folder}/{time.monotonic_ns()}.db"
    log = None
    if variant.payloads:
        log = LogWriter(FeedbackConfig.model_validate({"store_payloads": variant.payloads}), url, application="films")
        await log.open()
    service = CascadeService(
        lambda *_: _version(side, variant, config, log, metrics),
        config,
        Breaker(config.large.breaker),
        metrics,  # type: ignore[arg-type]
        log,
        lambda: asyncio.sleep(0, ""),
    )
    await service.stage(Release(version="films/1", bundle=folder))
    await _answer(service, inputs[:WARM_UP], "warm")
    started = time.process_time()
    await _answer(service, inputs, "r")
    await service.settled()
    if log:
        await log.flush()
    spent_s = time.process_time() - started
    if log is None:
        return 1000 * spent_s / len(inputs), 0
    log.close()
    lost = WARM_UP + len(inputs) - len(DecisionLog(url, 10.0).read(DECISIONS))
    return 1000 * spent_s / len(inputs), lost


async def _version(
    side: SmallSide, variant: Variant, config: ServeConfig, log: LogWriter | None, metrics: Any
) -> CascadeVersion:
    large: Any = NoLarge()
    auditor = None
    if log and variant.share:
        monitor = Monitor(log, "films/1", None, metrics)
        auditor = Auditor(config.audit, LABELS, lambda items: large.ask(items, 1.0), log, monitor, metrics)
    pictures = PictureReader(lambda content: content, max_pixels=1, max_waiting=1024, num_threads=1)
    judging = Judging(side.encoder, pictures, config)
    return CascadeVersion(side, judging, large, config, "films/1", auditor)


async def _answer(service: CascadeService, inputs: Sequence[Input], prefix: str) -> None:
    """All requests, CLIENTS of them at a time."""
    waiting = iter(enumerate(inputs))

    async def client() -> None:
        for number, given in waiting:
            await service.predict([given], Origin(f"{prefix}{number:031x}", "ann"))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def measured(num_requests: int, num_rounds: int, assets_dir: Path) -> dict[str, Any]:
    """The figures of every variant, and what a kept item costs without a log."""
    whole = small_side(assets_dir)
    bare = SmallSide(whole.bundle, StubEncoder(whole.encoder.dim), top_k=5)
    inputs = [Input(Content(text)) for text in texts(num_requests)]
    base, *logged = VARIANTS
    rounds: list[dict[str, float]] = []
    items_ms: list[float] = []
    lost = dict.fromkeys((variant.name for variant in VARIANTS), 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_rounds):
            items_ms.append(asyncio.run(cost(whole, base, inputs[: num_requests // 10], Path(folder)))[0])
            spent = {}
            for variant in random.Random(number).sample(VARIANTS, len(VARIANTS)):
                spent[variant.name], missing = asyncio.run(cost(bare, variant, inputs, Path(folder)))
                lost[variant.name] += missing
            rounds.append(spent)
    item_ms = statistics.median(items_ms)
    found: dict[str, Any] = {}
    for variant in logged:
        added_ms = statistics.median(spent[variant.name] - spent[base.name] for spent in rounds)
        found[variant.name] = {"added_ms": added_ms, "ratio": 1 + added_ms / item_ms, "lost": lost[variant.name]}
    return {"item_ms": item_ms, "variants": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = measured(options.requests, options.rounds, options.assets)
    table = Table("log", "added CPU ms (must <= 0.3)", "ratio (must <= 1.05)", "lost")
    for name, figures in found["variants"].items():
        table.add_row(name, f"{figures['added_ms']:+.3f}", f"{figures['ratio']:.3f}", str(figures["lost"]))
    console = Console(width=100)
    console.print(table, f"a kept item without a log: {found['item_ms']:.2f} CPU ms")
    if options.write:
        RESULT.write_text(json.dumps({"machine": machine()} | found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

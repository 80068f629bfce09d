"""The models without Serve around them: what the machine could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kcm.cascade.runtime import Cascade, Input, Judgement, load_cascade
from kcm.content import Content
from kcm.large import Item

NUM_ALONE = 40  # texts that are judged one after the other


@dataclass(frozen=True)
class Bare:
    """Seconds of CPU that either side takes for a text among many, and the share of texts that is escalated.

    `kept_alone_ms` is how long one kept text takes through the collaborator object.
    """

    small_cpu_ms: float
    large_cpu_ms: float
    call_rate: float
    kept_alone_ms: float

    @property
    def ideal_ratio(self) -> float:
        """How much more than the large model alone a cascade without any overhead gets done."""
        return self.large_cpu_ms / (self.small_cpu_ms + self.call_rate * self.large_cpu_ms)


def measure(bundle: Path, assets_dir: Path, texts: Sequence[str], threads: int) -> Bare:
    """Both sides of a bundle in this process, with as many threads as a replica has; both see every text."""
    torch.set_num_threads(threads)
    cascade = load_cascade(bundle, assets_dir)
    small, inputs = cascade.small_side, [Input(Content(text)) for text in texts]
    judgements = small.judge(inputs)  # warms up, too
    keeps = [isinstance(judgement, Judgement) and judgement.keeps for judgement in judgements]
    kept = [given for given, keeping in zip(inputs, keeps, strict=True) if keeping]
    questions = [Item(str(number), Content(text)) for number, text in enumerate(texts)]
    cascade.large_model.answer(questions[:32])
    return Bare(
        small_cpu_ms=_cpu_ms(lambda: small.judge(inputs)) / len(texts),
        large_cpu_ms=_cpu_ms(lambda: cascade.large_model.answer(questions)) / len(texts),
        call_rate=1 - len(kept) / len(texts),
        kept_alone_ms=_alone_ms(cascade, kept),
    )


def _cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def _alone_ms(cascade: Cascade, kept: Sequence[Input]) -> float:
    """Median over texts that are answered one after the other."""
    times = []
    for index in range(NUM_ALONE):
        started = time.perf_counter()
        cascade.answer([kept[index % len(kept)]])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)

"""The models without Serve around them: what the machine could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input, Judgement
from kcm.inputs.content import Content
from kcm.large import Item

NUM_ALONE = 40  # texts that are judged one after the other


@dataclass(frozen=True)
class Speeds:
    """Seconds of CPU that either side takes for a text among many, and the share of texts that is escalated."""

    small_cpu_ms: float
    large_cpu_ms: float
    call_rate: float

    @property
    def ideal_ratio(self) -> float:
        """How much more than the large model alone a cascade without any overhead gets done."""
        return self.large_cpu_ms / (self.small_cpu_ms + self.call_rate * self.large_cpu_ms)


class Bare:
    """Both sides of a bundle in this process, with as many threads as a replica has; both see every text."""

    def __init__(self, bundle: Path, assets_dir: Path, texts: Sequence[str], threads: int) -> None:
        torch.set_num_threads(threads)
        self._cascade = load_cascade(bundle, assets_dir)
        self._inputs = [Input(Content(text)) for text in texts]
        self._questions = [Item(str(number), Content(text)) for number, text in enumerate(texts)]
        judgements = self._cascade.small_side.judge(self._inputs)  # warms up, too
        self._cascade.large_model.answer(self._questions[:32])
        self._kept = [
            given
            for given, judgement in zip(self._inputs, judgements, strict=True)
            if isinstance(judgement, Judgement) and judgement.keeps
        ]

    def speeds(self) -> Speeds:
        """What either side takes for many texts."""
        count = len(self._inputs)
        return Speeds(
            small_cpu_ms=_cpu_ms(lambda: self._cascade.small_side.judge(self._inputs)) / count,
            large_cpu_ms=_cpu_ms(lambda: self._cascade.large_model.answer(self._questions)) / count,
            call_rate=1 - len(self._kept) / count,
        )

    def kept_alone_ms(self) -> float:
        """How long a kept text takes that is answered alone: the median over some."""
        times = []
        for index in range(NUM_ALONE):
            started = time.perf_counter()
            self._cascade.answer([self._kept[index % len(self._kept)]])
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)


def _cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)

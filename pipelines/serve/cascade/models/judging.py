"""One encoder and the queue in front of it: items are encoded once, whatever number of versions judges them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Failure, Input, Judgement, Unreadable
from kcm.bundle.runtime import SmallSide
from kcm.encoders import Encoder, encode_readable
from pipelines.serve.cascade.models.batcher import Batcher
from pipelines.serve.cascade.models.pictures import PictureReader
from pipelines.serve.config import BatchingConfig


@dataclass(frozen=True)
class Unjudged(Failure):
    """The networks of a version gave no numbers."""


Verdict = Judgement | Unreadable | Unjudged


@dataclass(frozen=True, eq=False)
class Asked:
    """An input, and the small sides that judge it."""

    given: Input
    sides: tuple[SmallSide, ...]


class Judging:
    """Encodes items of several requests together, and has the small sides of each judge their features.

    Versions with the same encoder share one: a challenger costs its networks alone. `pictures` reads the pictures of a
    request before its items queue. What fails in one small side harms no other. Items that would wait longer than
    `max_wait_s` are refused.
    """

    def __init__(
        self, encoder: Encoder, pictures: PictureReader, config: BatchingConfig, *, max_wait_s: float = math.inf
    ) -> None:
        self.encoder, self._pictures = encoder, pictures
        self._batcher: Batcher[Asked, tuple[Verdict, ...]] = Batcher(
            self._judge,
            lambda asked: asked.given.content.size,
            max_batch_size=config.max_batch_size,
            max_waiting=config.max_waiting_items,
            max_wait_s=max_wait_s,
        )

    @property
    def num_waiting(self) -> int:
        """Items that wait to be judged."""
        return self._batcher.num_waiting

    async def judge(self, inputs: Sequence[Input], *sides: SmallSide) -> list[tuple[Verdict, ...]]:
        """A verdict of each side on each input.

        Raises what reading pictures and encoding raise, and QueueFullError.
        """
        read = await self._pictures.read(inputs)
        return await self._batcher.submit([Asked(given, sides) for given in read])

    def _judge(self, batch: list[Asked]) -> list[tuple[Verdict, ...]]:
        started = time.perf_counter()
        features_ND, faults = encode_readable(self.encoder, [asked.given.content for asked in batch])
        encoded_s = (time.perf_counter() - started) / len(batch)
        readable = [asked for position, asked in enumerate(batch) if position not in faults]
        sides = dict.fromkeys(side for asked in readable for side in asked.sides)
        verdicts = {side: self._verdicts(side, features_ND, readable, encoded_s) for side in sides}
        return [
            tuple(Unreadable(faults[position]) if position in faults else next(verdicts[side]) for side in asked.sides)
            for position, asked in enumerate(batch)
        ]

    def _verdicts(
        self, side: SmallSide, features_ND: NDArray[np.float32], readable: Sequence[Asked], encoded_s: float
    ) -> Iterator[Verdict]:
        """The verdicts of one side on the inputs that it is asked about, in their order."""
        rows = [row for row, asked in enumerate(readable) if side in asked.sides]
        inputs = [readable[row].given for row in rows]
        mine_ND = features_ND if len(rows) == len(features_ND) else features_ND[rows]
        try:
            return iter(side.judge_features(mine_ND, inputs, encoded_s))
        except Exception as error:  # of networks and gate scores that anybody may have written
            return iter([Unjudged(f"{type(error).__name__}: {error}")] * len(rows))

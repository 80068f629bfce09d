"""A large model for simulations whose answers come from a table and cost nothing.

It repeats a recorded answer if there is one in its label list. Otherwise it gives the true label, except for a share of
wrong answers. It answers every class outside its list with the same listed label. This is the hardest case: its answers
do not show that the class is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from kcm.assets.manifest import sha256_of
from kcm.inputs.content import Part
from kcm.large import ON_CPU, Item, LargeAnswer, LargeConfig, LargeModel, LinearHead, Resources
from kcm.parquet import read_table
from kcm.tasks.splits import draw
from kcm.tasks.units import content_key


class PlayedConfig(LargeConfig):
    """The configuration of such a model."""

    path: Path = Field(
        description="Parquet file: `key` of a content, its true `label`, and the recorded answer `said`."
    )
    parts: tuple[Part, ...] = Field(("text",), description="The parts of a row that the model reads.")
    wrong: float = Field(
        0.01, ge=0, lt=1, description="Share of rows without a recorded answer that it answers wrongly."
    )

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""
        return frozenset(self.parts)

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        """The model, with its table in memory."""
        return PlayedModel(self, label_names, self.identity(label_names, assets_dir))

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        """The table, the share of wrong answers, and the labels."""
        return sha256("\0".join([sha256_of(self.path), str(self.wrong), *label_names]).encode()).hexdigest()


class PlayedModel:
    """Answers from a table; a content that is not in it gets the first label."""

    def __init__(self, config: PlayedConfig, label_names: Sequence[str], identity: str) -> None:
        self.label_names, self.identity, self._wrong = tuple(label_names), identity, config.wrong
        table = read_table(config.path)
        self._rows = {key: (truth, answer) for key, truth, answer in zip(*table.to_pydict().values(), strict=True)}

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item."""
        return [LargeAnswer(self._label(content_key(item.content))) for item in items]

    def _label(self, key: str) -> int:
        if key not in self._rows:
            return 0
        truth, answer = self._rows[key]
        if answer in self.label_names:
            return self.label_names.index(answer)
        errs = answer is None and draw(0, "played: errs", key) < self._wrong
        if truth in self.label_names and not errs:
            return self.label_names.index(truth)
        wrong_numbers = [number for number, name in enumerate(self.label_names) if name != truth]
        return wrong_numbers[int(draw(0, "played: instead", key if errs else truth) * len(wrong_numbers))]

"""A large model that is played from a table, for a simulation: its answers cost nothing.

It says what a recorded model has said, where that is known and in its list; else what is true, but for a share of the
rows. For a class that is not in its list it gives one and the same listed label, which is the hardest case: nothing in
its answers tells that the class is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kcm.assets.manifest import sha256_of
from kcm.inputs.content import Part
from kcm.large import ON_CPU, Item, LargeAnswer, LargeConfig, LargeModel, LinearHead, Resources
from kcm.parquet import read_table
from kcm.tasks.hashing import draw
from kcm.tasks.units import content_key


class PlayedConfig(LargeConfig):
    """The model that a table plays."""

    path: Path = Field(description="Parquet file: `key` of a content, its true `label`, what a model `said`.")
    parts: tuple[Part, ...] = Field(("text",), description="What rows have, and the model reads.")
    wrong: float = Field(0.01, ge=0, lt=1, description="Share of the other rows that it answers wrongly.")

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""
        return frozenset(self.parts)

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        """The model, which has read its table."""
        return PlayedModel(self, label_names, self.identity(label_names, assets_dir))

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        """The table, the share of wrong answers, and the labels."""
        return sha256("\0".join([sha256_of(self.path), str(self.wrong), *label_names]).encode()).hexdigest()


class PlayedModel:
    """Answers by the table; what is not in it gets the first label."""

    prompt_modes: ClassVar = PlayedConfig.prompt_modes

    def __init__(self, config: PlayedConfig, label_names: Sequence[str], identity: str) -> None:
        self.label_names, self.identity, self._wrong = tuple(label_names), identity, config.wrong
        table = read_table(config.path)
        self._rows = {key: (truth, said) for key, truth, said in zip(*table.to_pydict().values(), strict=True)}

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item."""
        return [LargeAnswer(self._label(content_key(item.content))) for item in items]

    def _label(self, key: str) -> int:
        if key not in self._rows:
            return 0
        truth, said = self._rows[key]
        if said in self.label_names:
            return self.label_names.index(said)
        errs = said is None and draw(0, "played: errs", key) < self._wrong
        if truth in self.label_names and not errs:
            return self.label_names.index(truth)
        others = [number for number, name in enumerate(self.label_names) if name != truth]
        return others[int(draw(0, "played: instead", key if errs else truth) * len(others))]

"""Several encoders, of which a run chooses one by its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from pydantic import Field, model_validator

from kcm.encoders.config import EncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import Part


class AutoEncoderConfig(EncoderConfig):
    """Encoders to choose from: the cheapest is taken that is within one standard error of the best.

    Accuracy is that of ridge regression on a thousand train rows, each left out; the cost is the time of a row.
    """

    candidates: tuple[EncoderConfig, ...] = Field(
        min_length=2, description="Encoders of the same inputs, of any kind that gives one vector a row."
    )

    @model_validator(mode="after")
    def _comparable(self) -> AutoEncoderConfig:
        if len({each.reads for each in self.candidates}) > 1:
            raise ValueError("candidates have to read the same parts of a row")
        for each in self.candidates:
            if each.dual or each.to_align or each.vector_columns or each.choices:
                raise ValueError(
                    f"an encoder of kind {each.kind!r} cannot be a candidate: give those of texts or pictures"
                )
        return self

    @property
    def reads(self) -> frozenset[Part]:
        return self.candidates[0].reads

    @property
    def choices(self) -> tuple[EncoderConfig, ...]:
        return self.candidates

    def load(self, assets_dir: Path, device: str = "cpu") -> NoReturn:
        """Raises ConfigError: there is an encoder once a run has chosen."""
        raise ConfigError(
            "kind: auto is chosen for the small side by a run",
            where="encoder",
            hint="Name one encoder here",
        )

    def identity(self, assets_dir: Path) -> NoReturn:
        """Raises what `load` raises."""
        self.load(assets_dir)

    def with_identity(self, identity: str, assets_dir: Path) -> EncoderConfig:
        """The candidate that has it; ConfigError where none has."""
        for each in self.candidates:
            if each.identity(assets_dir) == identity:
                return each
        raise ConfigError(
            f"no candidate is the encoder {identity[:12]} of the features",
            where="encoder.candidates",
            hint="Give the candidates that the run chose from, or `kcm run` anew",
        )

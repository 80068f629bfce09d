"""The task sequence as an artefact: the rows, their names, and the encoders that were fitted on some of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from kcm.encoders import AnyEncoderConfig, ImageTextConfig
from kcm.large import ClassifierConfig, ZeroShotConfig
from kcm.large.config import AnyLargeConfig
from kcm.tasks import TaskSequence
from pipelines.store.artefact import Artefact

ENCODER, LARGE = "encoder", "large"  # folders of the fitted heads, named after the side that they belong to


@dataclass(frozen=True)
class Names:
    """What tasks and labels are called; `none_label` is the answer to rows that have none of the labels."""

    tasks: tuple[str, ...]
    labels: tuple[str, ...]
    none_label: str | None

    @property
    def answers(self) -> tuple[str, ...]:
        """What a large model may answer: the label list, then none-of-these where rows may be out of scope."""
        return self.labels if self.none_label is None else (*self.labels, self.none_label)


class SequenceArtefact(Artefact):
    """The rows by task and split, written by `tasks`, or by `alignment` without the rows that heads were fitted on."""

    kind = "sequence"

    def load(self) -> TaskSequence:
        """The task sequence. Raises ArtefactError when it is damaged."""
        return TaskSequence.load(self.folder)

    @cached_property
    def names(self) -> Names:
        """The names of tasks and labels."""
        sequence = self.load()
        return Names(tuple(task.name for task in sequence.tasks), sequence.label_names, sequence.none_label)

    def with_head(self, encoder: AnyEncoderConfig, side: str = ENCODER) -> AnyEncoderConfig:
        """The encoder that names its fitted head in place of `towers`; one without towers as it is."""
        if isinstance(encoder, ImageTextConfig) and encoder.towers is not None:
            return encoder.model_copy(update={"model": str(self.folder / side), "towers": None})
        return encoder

    def large_with_head(self, large: AnyLargeConfig) -> AnyLargeConfig:
        """The large model whose encoder, where it has one, names its fitted head in place of `towers`."""
        if isinstance(large, ClassifierConfig | ZeroShotConfig):
            return large.model_copy(update={"encoder": self.with_head(large.encoder, LARGE)})
        return large

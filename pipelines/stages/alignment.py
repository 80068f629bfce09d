"""Stage `alignment`: fits alignment heads, on train rows from which no other network learns.

On its own train rows, a head is overconfident (match AUC above .99 against .87); networks that learn from the same rows
would become overconfident.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.config import Config
from kcm.encoders.config import EncoderConfig, TowersConfig, towers_of
from kcm.encoders.dual.alignment import fit_alignment, save_aligned
from kcm.errors import DataError
from kcm.large import LargeConfig
from kcm.tasks.readers.pairs import MATCH
from kcm.tasks.sequence import BAD_ROWS, DESCRIPTION, UNITS, read_description, write_description, write_rows
from kcm.tasks.splits import draw
from pipelines.batch.encoding import encoded
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import feature_matrix
from pipelines.store.sequence import ENCODER, LARGE, SequenceArtefact, unit_names


class Towers(Config):
    """Two encoders to be aligned, with their identities on this machine."""

    identities: tuple[str, str]
    share: float
    config: TowersConfig = Field(exclude=True)

    @classmethod
    def of(cls, towers: TowersConfig, assets_path: Path) -> Towers:
        """The towers with the identity of each encoder."""
        image, text = (tower.identity(assets_path) for tower in (towers.image, towers.text))
        return cls(identities=(image, text), share=towers.share, config=towers)


class Heads(Plan):
    """The heads to fit, by the side of their encoder."""

    towers: dict[str, Towers]
    device: str
    seed: int

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """Write a folder for each head, and the sequence without the train rows of any head."""
        if MATCH not in sequence.names.labels:
            raise DataError(
                f"no label {MATCH!r} tells which rows match", where="encoder.towers", hint="Use a source of kind pairs"
            )
        for side, towers in self.towers.items():
            rows = _fitted_on(sequence, towers.share, self.seed)
            images_NI, texts_NT = (
                feature_matrix(encoded(attempt, tower, rows, attempt.scratch / side / part))
                for part, tower in (("image", towers.config.image), ("text", towers.config.text))
            )
            head = fit_alignment(images_NI, texts_NT, rows["text"].to_pylist(), self.seed)
            (attempt.folder / side).mkdir()
            save_aligned(attempt.folder / side, towers.config, head)
        share = max(towers.share for towers in self.towers.values())
        description = read_description(sequence.file(DESCRIPTION).parent)
        for number in range(len(description["tasks"])):
            write_rows(attempt.folder, number, _without(sequence.task(number), share, self.seed))
        for name in (BAD_ROWS, UNITS):
            shutil.copyfile(sequence.file(name), attempt.folder / name)
        del description["summary"]  # of all rows
        write_description(attempt.folder, description)


class Alignment(Stage):
    """The task sequence without the train rows that heads were fitted on, and these heads (see `with_head`)."""

    stage, version, reads, writes = "alignment", 2, ("sequence",), SequenceArtefact

    encoder: EncoderConfig
    large: LargeConfig
    seed: int

    def applies(self) -> bool:
        """Whether an encoder consists of towers."""
        return bool(self._towers())

    def plan(self, context: Context, sequence: SequenceArtefact) -> Heads:
        """The towers to align, by the section of the configuration that contains them."""
        towers = {side: Towers.of(config, context.assets_path) for side, config in self._towers().items()}
        return Heads(towers=towers, device=context.cluster.device, seed=self.seed)

    def _towers(self) -> dict[str, TowersConfig]:
        encoders = {ENCODER: self.encoder, LARGE: self.large.backbone}
        return {side: towers for side, encoder in encoders.items() if encoder and (towers := towers_of(encoder))}


def _fitted_on(sequence: SequenceArtefact, share: float, seed: int) -> pa.Table:
    """The matching train rows that a head of this share is fitted on: id, text and image."""
    match, parts = sequence.names.labels.index(MATCH), []
    for number in range(len(sequence.names.tasks)):
        rows = sequence.task(number, split="train").filter(pc.field("label") == match)
        parts.append(rows.filter(pa.array(_drawn(rows, share, seed))).select(["id", "text", "image"]))
    return pa.concat_tables(parts)


def _without(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """The rows of a task, without the train rows that any head was fitted on and without rows of their groups."""
    is_train = pc.equal(rows["split"], "train")
    return rows.filter(pc.invert(pc.and_(is_train, pa.array(_drawn(rows, share, seed)))))


def _drawn(rows: pa.Table, share: float, seed: int) -> np.ndarray:
    """Rows whose group is drawn to fit heads, bool [N]; a larger share includes the rows of a smaller one."""
    return np.array([draw(seed, "alignment", unit) < share for unit in unit_names(rows)], dtype=bool)

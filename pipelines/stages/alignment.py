"""Stage `alignment`: heads of dual encoders are fitted, on train rows that nothing else learns from afterwards.

On the rows that it was fitted on an alignment head is far surer than on others (match AUC above .99 against .87), so
that networks which learned from them would expect a certainty that never comes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.encoders import TowersConfig
from kcm.encoders.aligned import save_aligned
from kcm.encoders.alignment import fit_alignment
from kcm.errors import DataError
from kcm.tasks import TaskSequence
from kcm.tasks.hashing import draw
from kcm.tasks.pairs import MATCH
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.stages.features import encoded
from pipelines.stages.tasks import load_sequence
from pipelines.store.artefact import Artefact, Recipe

VERSION = 1


def alignment(context: Context, tasks: Artefact) -> Artefact:
    """The task sequence without the train rows that heads were fitted on; `tasks` itself where no head is to be.

    The run's configuration goes on with the folders of the fitted heads: all later stages see encoders as any others.
    """
    wanted = _towers(context)
    if not wanted:
        return tasks
    seed, share = context.config.seed, max(towers.share for towers in wanted.values())
    section = {
        "towers": {side: _section(context, towers) for side, towers in wanted.items()},
        "device": context.config.cluster.device,
        "seed": seed,
    }

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence = load_sequence(tasks)
        for side, towers in wanted.items():
            rows = _fitted_on(sequence, towers.share, seed)
            images_NI = encoded(context, towers.image, rows, scratch=scratch / side / "image", bar=bar)
            texts_NT = encoded(context, towers.text, rows, scratch=scratch / side / "text", bar=bar)
            head = fit_alignment(images_NI, texts_NT, rows["text"].to_pylist(), towers.fit, seed)
            (folder / side).mkdir()
            save_aligned(folder / side, towers, head)
        _without(sequence, share, seed).save(folder)

    artefact = context.build(Recipe("alignment", VERSION, section, (tasks,)), write)
    _go_on_with(context, artefact, wanted)
    return artefact


def _towers(context: Context) -> dict[str, TowersConfig]:
    """The towers to be aligned, by the section of the configuration that has them."""
    encoders = {"encoder": context.config.encoder, "large": context.config.large.backbone}
    return {side: towers for side, encoder in encoders.items() if encoder and (towers := encoder.to_align)}


def _section(context: Context, towers: TowersConfig) -> dict[str, object]:
    identities = [tower.identity(context.config.assets_path) for tower in (towers.image, towers.text)]
    return {"identities": identities, "share": towers.share, "fit": towers.fit.model_dump(mode="json")}


def _go_on_with(context: Context, artefact: Artefact, wanted: dict[str, TowersConfig]) -> None:
    """Name the fitted heads in the configuration, in place of their towers."""
    config = context.config
    if "encoder" in wanted:
        config = config.model_copy(update={"encoder": config.encoder.aligned(artefact.folder / "encoder")})
    if "large" in wanted:
        aligned = config.large.backbone.aligned(artefact.folder / "large")
        config = config.model_copy(update={"large": config.large.with_backbone(aligned)})
    context.config = config


def _fitted_on(sequence: TaskSequence, share: float, seed: int) -> pa.Table:
    """The matching train rows that a head of this share is fitted on: id, text and image."""
    if MATCH not in sequence.label_names:
        raise DataError(
            f"no label {MATCH!r} tells which rows match", where="encoder.towers", mend="Use a source of kind pairs"
        )
    match = sequence.label_names.index(MATCH)
    parts = []
    for number in range(len(sequence.tasks)):
        rows = sequence.rows(number)
        mask = pc.and_(pc.equal(rows["split"], "train"), pc.equal(rows["label"], match))
        rows = rows.filter(mask)
        parts.append(rows.filter(pa.array(_drawn(rows, share, seed))).select(["id", "text", "image"]))
    return pa.concat_tables(parts)


def _without(sequence: TaskSequence, share: float, seed: int) -> TaskSequence:
    """The sequence without the train rows that any head was fitted on, and those of the same groups."""
    tasks = []
    for task in sequence.tasks:
        train = task.splits["train"]
        kept = np.flatnonzero(~_drawn(train.with_format("arrow")[:], share, seed))
        if len(set(np.asarray(train["label"])[kept])) < len(task.label_names):
            raise DataError(
                f"task {task.name!r} has no train rows of every label left beside those of the alignment head",
                where="encoder.towers.share",
                mend="Lower it, or add rows",
            )
        tasks.append(dataclasses.replace(task, splits={**task.splits, "train": train.select(kept)}))
    return dataclasses.replace(sequence, tasks=tuple(tasks))


def _drawn(rows: pa.Table, share: float, seed: int) -> np.ndarray:
    """Rows whose group is among those that heads are fitted on, bool [N]; those of a small share are in any larger."""
    names = zip(rows["group"].to_pylist(), rows["id"].to_pylist(), strict=True)
    return np.array([draw(seed, "alignment", group or row) < share for group, row in names], dtype=bool)

"""Fits the heads of a configuration's towers, on train rows from which no other network learns.

    python -m kcm_extension.matching.align CONFIG [--set KEY.PATH=VALUE ...]

On its own train rows a head is overconfident (match AUC above .99 against .87), and networks that learn from the same
rows would become so too. The groups that heads were fitted on are therefore written to the file `leave_out` of the
source, which leaves them out of the run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.config import load_config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import IMAGE, TEXT, contents
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.sequence import read_description, read_shard
from kcm.tasks.shards import task_shards
from kcm.tasks.splits import draw
from pipelines.config import RunConfig

from .head import fit_alignment
from .pairs import MATCH, PairsSource
from .towers import TowersConfig

_ROWS_AT_ONCE = 1024


def align(config: RunConfig) -> None:
    """Fit and write the head of every encoder of towers, and the groups to leave out.

    Raises ConfigError for a run without towers, or of another source than `pairs`.
    """
    encoders = (config.encoder, config.large.backbone)
    towers = [encoder for encoder in encoders if isinstance(encoder, TowersConfig)]
    source = config.tasks.source
    if not towers or not isinstance(source, PairsSource) or source.leave_out is None:
        raise ConfigError("alignment needs an encoder of kind towers, and a source of kind pairs with leave_out")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything = source.model_copy(update={"leave_out": None}).build(config.assets_path)
        write_sequence(config.tasks, folder, everything, config.seed, reads=IMAGE | TEXT)
        description = read_description(folder)
        tasks = range(len(description["tasks"]))
        rows = pa.concat_tables([read_shard(file) for number in tasks for file in task_shards(folder, number)])
    train = rows.filter(pc.equal(rows["split"], "train"))
    matching = train.filter(pc.equal(train["label"], description["label_names"].index(MATCH)))
    for encoder in towers:
        part = matching.filter(pa.array(_drawn(matching, encoder.share, config.seed)))
        images_NI, texts_NT = (encoded(part, tower, config.assets_path) for tower in (encoder.image, encoder.text))
        fit_alignment(images_NI, texts_NT, part["text"].to_pylist(), config.seed).save(encoder.fitted_head)
        print(f"fitted on {len(part):,} pairs: {encoder.fitted_head}", flush=True)
    left_out = train.filter(pa.array(_drawn(train, max(encoder.share for encoder in towers), config.seed)))
    path = Path(source.leave_out).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted(set(left_out["group"].to_pylist()))), encoding="utf-8")


def encoded(rows: pa.Table, encoder: EncoderConfig, assets_dir: Path) -> np.ndarray:
    """Vectors of the rows' pictures or texts, float32 [N, D]."""
    built, parts = encoder.build(assets_dir), []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = rows.slice(start, _ROWS_AT_ONCE)
        parts.append(built.encode(contents(batch["text"].to_pylist(), batch["image"].to_pylist())))
    return np.concatenate(parts)


def _drawn(rows: pa.Table, share: float, seed: int) -> list[bool]:
    """Rows whose group is drawn to fit heads [N]; a larger share includes the rows of a smaller one."""
    return [draw(seed, "alignment", group) < share for group in rows["group"].to_pylist()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the heads of the configuration that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    given = parser.parse_args(arguments)
    align(load_config(RunConfig, given.config, given.set))


if __name__ == "__main__":
    main()

"""Tables of texts labelled by the command `kcm label` with recorded answers."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

import kcm.labelling.label
import kcm.labelling.text
from benchmarks.label_tables import TextTable
from jobs.cli import app

CHEAPER_PRICE = 1 / 15  # of an answer of the cheaper model, in answers of the oracle


def encode_once(folder: Path) -> None:
    """Encode every table once, into a file of `folder`; the command does so once per run, with the same vectors."""
    encoded = kcm.labelling.label.encoded

    def stored(texts: Sequence[str], *rest: Any) -> np.ndarray:
        file = folder / f"{hashlib.sha256(json.dumps([*texts, str(rest[0])]).encode()).hexdigest()[:32]}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, encoded(texts, *rest))
        return np.load(file)

    kcm.labelling.label.encoded = stored  # type: ignore[assignment]


def run_command(
    table: TextTable, target: float, delta: float, seed: int, assets: Path, cheaper: bool = False
) -> dict[str, Any]:
    """Figures of one run of `kcm label TABLE --answers COLUMN`, with a store and a ledger of its own.

    `calls` is the share of rows whose answer was bought, `differ` counts the delivered labels that are not the
    oracle's, from the output; `money` adds the price of the cheaper model's answers.
    """
    columns = [table.cheaper, table.oracle] if cheaper and table.cheaper else [table.oracle]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, labels, result = folder / "rows.csv", folder / "labels.txt", folder / "result.json"
        table.frame[["text", *columns]].to_csv(file, index=False)
        labels.write_text("\n".join(table.labels) + "\n", encoding="utf-8")
        words = ["label", str(file), "--text", "text", "--labels", str(labels), "--yes", "--json", str(result)]
        words += [word for column in columns for word in ("--answers", column)]
        words += ["--target", str(target), "--delta", str(delta), "--seed", str(seed)]
        words += ["--assets-path", str(assets)]
        shown = CliRunner().invoke(app, words, env={"XDG_DATA_HOME": name})
        if not result.exists():
            raise RuntimeError(f"kcm {' '.join(words)} failed: {shown.output} {shown.exception!r}")
        figures = json.loads(result.read_text(encoding="utf-8"))
        delivered = output_labels([each for each in folder.glob("*.csv") if each != file], len(table.frame))
    calls = figures["bought"] / figures["rows"]
    return {
        "calls": calls,
        "money": calls + CHEAPER_PRICE * figures.get("bought_cheaper", 0) / figures["rows"],
        "differ": int((delivered != table.answers).sum()),
        "promised": figures["promised"],
        "certified": figures["certified"],
    }


def output_labels(files: list[Path], num_rows: int) -> np.ndarray:
    """The column `label` [N] of the labelled table among `files`."""
    for file in files:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        if "label" in frame and len(frame) == num_rows:
            return frame["label"].to_numpy()
    raise FileNotFoundError(f"no labelled table of {num_rows} rows among {[file.name for file in files]}")

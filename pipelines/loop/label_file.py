"""Labels of people for audited items: out as a table, and back in whole or not at all.

The large model was asked about an audited item with a known probability, so audits are a random sample of the traffic.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import DataError
from kcm.inputs.cell_text import guarded_frame
from kcm.inputs.chunks import SUFFIXES
from kcm.inputs.tables import read_frame
from pipelines.serve.log.window import row_ids

NOTHING_READ = "No label was read: mend the file and start again"


def write_audits(decisions: pa.Table, file: Path) -> int:
    """Write the items that the large model was asked about as CSV, with an empty column `label`; returns their number.

    `probability` is the probability with which it was asked. Its answer is left out: people shall not read it first.
    """
    asked = pc.or_(pc.not_equal(decisions["route"], "small"), decisions["state"].is_valid())
    rows = decisions.filter(asked)
    columns = {"id": row_ids(rows)} | {name: rows[name] for name in ("probability", "task", "text")}
    frame = pa.table(columns).to_pandas().assign(label="")
    guarded_frame(frame).to_csv(file, index=False)
    return len(rows)


def read_labels(file: Path) -> dict[str, str]:
    """The labels of a file by item, without empty ones. DataError if it cannot be read whole."""
    frame = read_frame(file, SUFFIXES).fillna("").astype(str)
    if missing := {"id", "label"} - {*frame.columns}:
        raise DataError(
            f"there is no column {min(missing)!r}", where=str(file), hint="`kcm log export --audits` has it"
        )
    labelled = frame[frame["label"].str.strip() != ""]
    if labelled.empty:
        raise DataError("no row has a label", where=str(file), hint="Fill the column label")
    if len(twice := labelled[labelled["id"].duplicated()]):
        raise DataError(f"item {twice['id'].iloc[0]!r} has two labels", where=str(file), hint=NOTHING_READ)
    return dict(zip(labelled["id"], labelled["label"].str.strip(), strict=True))

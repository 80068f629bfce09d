"""The run that continues from a labelled table: a configuration for `kcm run`, `kcm serve` and `kcm update`.

Its rows are the bought answers. They are no random sample of the table: the rows that the small model answered are
missing. So they certify nothing. The run's champion keeps inputs above the bundle's threshold, and `kcm update`
certifies on traffic.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.labelling.label import LabelledTable
from kcm.labelling.output import write_frame
from kcm.tasks.splits import draws
from pipelines.config import RunConfig

AUDIT_SHARE = 0.2  # audit share of kept items until there is a certificate
TEST_SHARE = (
    0.1  # share of test rows among the bought answers, for the gates that compare a challenger with the champion
)
_FEWEST = 3  # least number of a label's answers with a test row among them
_HEAD = """\
# Written by `kcm label`: the small model of {table} keeps learning. `kcm config` explains every key.
#
#   kcm run {file}      # makes the first champion from the bought answers; costs nothing
#   kcm serve {file}    # no certificate yet: the LLM checks {audited:.0%} of the small model's answers
#   kcm update {file}   # learns from traffic, certifies on it, and promotes a better version
"""


def write_run(labelled: LabelledTable, output: Path, table: str) -> tuple[Path, Path]:
    """Write configuration and rows next to `output`, the labelled `table`; returns both paths.

    The job has a bundle. Raises ConfigError, and writes nothing, if the answers make no run, or if another
    configuration exists there, which somebody may have edited.
    """
    file, rows = output.with_suffix(".yaml"), output.with_name(f"{output.stem}.bought.csv")
    paid_rows, values = bought_rows(labelled), _values(labelled, file, rows)
    parse_config(RunConfig, values, where=str(file))
    head = _HEAD.format(table=table, file=shlex.quote(str(file)), audited=AUDIT_SHARE)
    content = head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if file.exists() and file.read_text(encoding="utf-8") != content:
        raise ConfigError(f"kept the existing {file.name}, which differs; delete it to write a new one")
    write_frame(paid_rows, rows)
    file.write_text(content, encoding="utf-8")
    return file, rows


def bought_rows(labelled: LabelledTable) -> pd.DataFrame:
    """The bought answers with the columns text, label and split; each label has a train row.

    Raises ConfigError for a label without an answer: the large model's question would change.
    """
    units = np.flatnonzero(labelled.result.bought_U)
    names = np.array(labelled.labels.names, dtype=object)
    frame = pd.DataFrame(
        {"text": [labelled.texts.texts[unit] for unit in units], "label": names[labelled.result.answer_U[units]]}
    )
    counts = Counter(frame["label"])
    if lacking := [name for name in labelled.labels.names if not counts[name]]:
        raise ConfigError(f"no bought answer is {lacking[0]!r}", where="labels")
    if sum(count >= _FEWEST for count in counts.values()) < 2:
        raise ConfigError(f"fewer than two labels have {_FEWEST} bought answers", where="labels")
    place = frame.assign(draw=draws(labelled.certificate.seed, "test", frame["text"])).groupby("label")["draw"].rank()
    num_test = frame["label"].map({name: _num_test(count) for name, count in counts.items()})
    return frame.assign(split=np.where(place <= num_test, "test", "train"))


def _num_test(count: int) -> int:
    return math.ceil(TEST_SHARE * count) if count >= _FEWEST else 0


def _values(labelled: LabelledTable, file: Path, rows: Path) -> dict[str, Any]:
    """The configuration. Raises ConfigError for a job whose small model answered nothing."""
    models, threshold = labelled.models, labelled.bundle.policy.decision.threshold
    assert models is not None  # there is a bundle
    if threshold is None:
        raise ConfigError("every answer was bought", hint="Start with `kcm init` on the labelled table")
    source = {
        "kind": "files",
        "path": str(rows.absolute()),
        "text_column": "text",
        "label_column": "label",
        "split_column": "split",
        "labels": list(labelled.labels.names),
    }
    fractions = {"train": 1 - TEST_SHARE, "validate": 0.0, "certify": 0.0, "test": TEST_SHARE}
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-") or "labelled",
        "storage_path": str(file.absolute().with_suffix(".storage")),
        "assets_path": str(models.assets.absolute()),
        "paid_answers": models.store.url,
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 1, "fractions": fractions},
        "encoder": models.encoder.model_dump(mode="json", exclude_defaults=True),
        "large": models.server.model_dump(mode="json", exclude_defaults=True),
        "collaborators": ["kcm"],
        "tune": {"gates": ["confidence"], "scopes": ["global"]},
        "serve": {"audit": {"share": AUDIT_SHARE}, "feedback": {"store_payloads": "text"}},
        "update": {"first_threshold": threshold},
    }

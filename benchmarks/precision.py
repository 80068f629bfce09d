"""What int8 or bfloat16 does to a cascade: two runs that differ in nothing but their encoders' precision, row by row.

    kcm assets reviews sentence-transformers/all-MiniLM-L6-v2 sentence-transformers/all-mpnet-base-v2
    python benchmarks/precision.py reviews [--write]                             jobs/configs/reviews.yaml
    python benchmarks/precision.py clinc --clinc data_full.json [--write]        CLINC150, all 150 intents

`--precision bfloat16` is for processors that compute in it, such as those with AMX. `--write` puts the row into
benchmarks/results/precision.json. Both the small and the large encoder are in float32 in one run and in the other
precision in the other. Each run has a storage of its own below --storage, where it is found when it is
finished: in a common one the second look at the certify rows could spend less, and the second search would start warm.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from by_steps import REPLAY_ON_LDA
from machine import machine
from rich.console import Console
from rich.table import Table

from kcm.cascade.table import concatenate
from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.metrics.intervals import Interval, paired_difference
from kcm.metrics.units import Units
from pipelines.config import RunConfig
from pipelines.run import STAGES, run_context
from pipelines.stages.stage import run_stages
from pipelines.store.outcome_table import outcome_parts

RESULTS = Path(__file__).parent / "results" / "precision.json"
REVIEWS = Path(__file__).parents[1] / "jobs" / "configs" / "reviews.yaml"
# Fixed before any test row was read; learner, network and train are those of a run that names none.
CLINC: dict[str, Any] = {
    "name": "clinc",
    "collaborators": ["kcm"],
    "tasks": {
        "scenario": "class_incremental",
        "num_tasks": 10,
        "max_rows_per_task": 800,
        "fractions": {"train": 0.40, "validate": 0.15, "certify": 0.27, "test": 0.18},
    },
    "encoder": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    "large": {
        "adapter": "classifier",
        "encoder": {"model": "sentence-transformers/all-mpnet-base-v2", "batch_size": 32},
    },
    **REPLAY_ON_LDA,
    "tune": {"num_trials": 4, "gates": ["confidence", "deferral"]},
    "certificate": {"epsilon": 0.03, "delta": 0.1},
}
FIGURES: dict[str, Callable[[Answers], np.ndarray]] = {
    "small": lambda rows: rows.small_N,
    "large": lambda rows: rows.large_N,
    "cascade": lambda rows: rows.cascade_N,
    "calls_saved": lambda rows: rows.kept_N,
}


@dataclass(frozen=True, eq=False)
class Answers:
    """The test rows of a run: whether small and large model are right, and whether the small one answers. N rows."""

    id_N: np.ndarray
    group_N: np.ndarray | None
    small_N: np.ndarray
    large_N: np.ndarray
    kept_N: np.ndarray

    @property
    def cascade_N(self) -> np.ndarray:
        """The cascade is right."""
        return np.where(self.kept_N, self.small_N, self.large_N)


@dataclass(frozen=True)
class Measured:
    """A run: its test rows and its certificate, by collaborator."""

    rows: dict[str, Answers]
    certificates: dict[str, dict[str, Any]]


def measured(config: RunConfig) -> Measured:
    """A run up to `evaluate`, from the store where it is finished."""
    done: dict[str, Any] = {}
    stages = [stage.of(config) for stage in STAGES]
    with run_context(config, stages) as context:
        for name, artefact in run_stages(stages, context):
            done[name] = artefact
            if name == "evaluate":
                break
    rows = {name: _answers(done, name) for name in config.trained}
    result = done["evaluate"].result
    for name, each in rows.items():  # else these are not the rows that the run itself measured
        assert np.isclose(each.cascade_N.mean(), result[name]["overall"]["cascade_accuracy"])
    return Measured(rows, {name: result[name]["certificate"] for name in rows})


def _answers(done: Mapping[str, Any], name: str) -> Answers:
    found, policy = done["tune"].load(name), done["evaluate"].policy(name)
    parts = list(outcome_parts(found.collaborator, done["features"], done["outcomes"], ("test",)))
    table = concatenate([part.table for part in parts])
    score_N = np.concatenate([part.scores(found.gate) for part in parts])
    kept_N = policy.keep(score_N, table.task)
    return Answers(table.id, table.group, table.small_correct, table.large_correct, kept_N)


def compared(other: Answers, float32: Answers) -> dict[str, Any]:
    """Each figure of the other precision minus that of float32, paired by row.

    `won` and `lost` count the rows on which the other alone is right (keeps the row), and float32 alone. Raises
    ValueError for other rows.
    """
    if not np.array_equal(other.id_N, float32.id_N):
        raise ValueError("the two runs have other test rows, or in another order: nothing can be paired")
    found: dict[str, Any] = {}
    for name, figure in FIGURES.items():
        first_N, second_N = figure(other), figure(float32)
        difference = paired_difference(first_N, second_N, float32.group_N)
        assert difference is not None  # there are rows
        counts = {"won": int((first_N & ~second_N).sum()), "lost": int((second_N & ~first_N).sum())}
        found[name] = asdict(difference) | counts
    return found


def row(config: Callable[[str], RunConfig], other: str) -> dict[str, Any]:
    """Both runs of a configuration, by collaborator, and what the other precision has more than float32."""
    runs = {precision: measured(config(precision)) for precision in ("float32", other)}
    collaborators = {}
    for name, rows in runs["float32"].rows.items():
        each = {
            precision: {figure: float(of(run.rows[name]).mean()) for figure, of in FIGURES.items()}
            | {"certificate": run.certificates[name]}
            for precision, run in runs.items()
        }
        collaborators[name] = each | {"minus_float32": compared(runs[other].rows[name], rows)}
    return {
        "precision": other,
        "num_rows": len(rows.id_N),
        "num_units": Units(rows.group_N, len(rows.id_N)).count,
        "collaborators": collaborators,
    }


def _configured(values: Mapping[str, Any], precision: str, arguments: argparse.Namespace) -> RunConfig:
    """A configuration with both encoders in a precision, and a storage of its own."""
    encoders = {"encoder": values["encoder"] | {"precision": precision}}
    large = values["large"] | {"encoder": values["large"]["encoder"] | {"precision": precision}}
    storage = (arguments.storage / arguments.data / precision).absolute()
    places = {"storage_path": storage, "assets_path": arguments.assets.absolute()}
    return parse_config(RunConfig, {**values, **encoders, "large": large, **places})


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.data == "reviews":
        values: dict[str, Any] = yaml.safe_load(REVIEWS.read_text(encoding="utf-8"))
        return values
    if arguments.clinc is None:
        raise ConfigError("clinc needs its rows", where="--clinc", hint="Name CLINC150's data_full.json")
    source = {"kind": "files", "path": str(arguments.clinc.absolute())}
    return CLINC | {"tasks": CLINC["tasks"] | {"source": source}}


def table(data: str, found: Mapping[str, Any]) -> Table:
    """The row for a person, in percent and percentage points."""
    title = f"{data}: {found['num_rows']:,} test rows in {found['num_units']:,} units"
    shown = Table(title=title, title_style="bold")
    precisions = "float32", found["precision"]
    for heading in ("", "figure", *precisions, f"{found['precision']} - float32", "won", "lost"):
        shown.add_column(heading, justify="left" if heading in ("", "figure") else "right")
    for name, each in found["collaborators"].items():
        for figure in FIGURES:
            both = (f"{100 * each[precision][figure]:.1f}" for precision in precisions)
            less = each["minus_float32"][figure]
            interval = _points(Interval(less["estimate"], less["low"], less["high"]))
            shown.add_row(name, figure, *both, interval, str(less["won"]), str(less["lost"]))
        shown.add_row(name, "certificate", *(_promise(each[precision]["certificate"]) for precision in precisions))
    return shown


def _points(found: Interval) -> str:
    return f"{100 * found.estimate:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _promise(certificate: Mapping[str, Any]) -> str:
    if certificate["decision"] == "escalate_all":
        return "nothing kept"
    return f"at most {100 * certificate['bound']:.1f} lost, {100 * (1 - certificate['call_rate']):.1f} saved"


def main() -> None:
    """Measure one data set, print it, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("reviews", "clinc"))
    parser.add_argument("--precision", choices=("int8", "bfloat16"), default="int8")
    parser.add_argument("--clinc", type=Path, help="CLINC150's data_full.json")
    parser.add_argument("--storage", type=Path, default=Path("storage/precision"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true", help=f"keep the row in {RESULTS.name}")
    arguments = parser.parse_args()
    values = _values(arguments)
    found = row(lambda precision: _configured(values, precision, arguments), arguments.precision)
    Console(width=140).print(table(arguments.data, found))
    if arguments.write:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else {}
        name = f"{arguments.data}, {arguments.precision}"
        rows = kept | {name: found | {"machine": {**machine(), "cores": os.cpu_count()}}}
        RESULTS.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

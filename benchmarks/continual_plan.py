"""What benchmarks/continual.py measures: the data, and the rows of each table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.datasets import load_digits

from benchmarks.study.settings import LEARNERS, has_memory
from benchmarks.study.study import StudyConfig
from kcm.config import parse_config

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
SETTINGS = Path(__file__).parent / "settings"

# Settings were chosen on validate rows, so these get some; data with splits of their own keep them.
FRACTIONS = {"train": 0.6, "validate": 0.15, "certify": 0.05, "test": 0.2}

ALL_NETWORKS = ("kan", "mlp", "linear")
HEADLINE_SEEDS, DESCRIPTIVE_SEEDS = 10, 3


@dataclass(frozen=True)
class Row:
    """Cells that make one row of a table, networks side by side."""

    learner: str
    memory_per_class: float | None = None
    networks: tuple[str, ...] = ("kan", "mlp")
    num_seeds: int = DESCRIPTIVE_SEEDS

    @property
    def name(self) -> str:
        """As in replay@2."""
        return self.learner if self.memory_per_class is None else f"{self.learner}@{self.memory_per_class:g}"


# Named before anything was measured; everything else is descriptive.
HEADLINE = (
    Row("replay", 2, num_seeds=HEADLINE_SEEDS),
    Row("replay", 10, num_seeds=HEADLINE_SEEDS),
    Row("analytic", num_seeds=HEADLINE_SEEDS),
)
MEMORIES = (0, 2, 10)


def descriptive() -> tuple[Row, ...]:
    """Every learner at every memory, the linear network too; then the class means."""
    headline = {(row.learner, row.memory_per_class) for row in HEADLINE}
    learners = [
        Row(learner, memory, ("linear",) if (learner, memory) in headline else ALL_NETWORKS)
        for learner in LEARNERS
        for memory in (MEMORIES if has_memory(learner) else (None,))
        if learner not in ("analytic", "slda")
    ]
    return (*learners, Row("finetune", networks=("ncm",)))


# Asymmetric cross-entropy under SGD, on a base of class means or not: named before any of its test rows were read.
EVERY_KIND = ("kan", "mlp", "linear", "random_relu")
REMEMBERING = (
    Row("replay", 2, EVERY_KIND, num_seeds=HEADLINE_SEEDS),
    Row("replay", 10, EVERY_KIND, num_seeds=HEADLINE_SEEDS),
    Row("finetune", None, EVERY_KIND, num_seeds=HEADLINE_SEEDS),
    Row("analytic", None, ("kan", "mlp"), num_seeds=HEADLINE_SEEDS),
    Row("slda", None, ("kan", "linear"), num_seeds=HEADLINE_SEEDS),
)
# The tail's own settings: what raises small classes.
TAIL = (
    Row("replay", 2, EVERY_KIND, num_seeds=HEADLINE_SEEDS),
    Row("analytic", None, ("kan", "mlp"), num_seeds=HEADLINE_SEEDS),
    Row("slda", None, ("kan", "linear"), num_seeds=HEADLINE_SEEDS),
)


@dataclass(frozen=True)
class DataSet:
    """Tasks of one benchmark, and the file of settings that it shares with others of the same data."""

    name: str
    title: str
    settings: str
    tasks: Mapping[str, Any]
    rows: tuple[Row, ...]
    feature_columns: tuple[str, ...] = ()

    def study(self, row: Row, **changes: Any) -> StudyConfig:
        """The study that measures a row."""
        return parse_config(
            StudyConfig,
            {
                "tasks": {"fractions": FRACTIONS, **self.tasks},
                "feature_columns": self.feature_columns,
                "encoder": {"model": ENCODER},
                "networks": row.networks,
                "learners": [row.learner],
                "memory_per_class": [row.memory_per_class or 0],
                "num_seeds": row.num_seeds,
                **changes,
            },
        )

    @property
    def settings_file(self) -> Path:
        """Where the settings are committed that were best on held-out streams."""
        return SETTINGS / f"{self.settings}.yaml"


def data_sets(clinc: str, domains: Path | None, storage: Path) -> list[DataSet]:
    """All benchmarks. `clinc` is a file or hub id; by domain: a file and `domains`, a JSON file domain -> intents."""
    studies = (*HEADLINE, *descriptive())
    names = []
    intents = {"source": clinc_source(clinc, storage), "scenario": "class_incremental"}
    if domains is not None:
        by_domain = {**intents, "source": _by_domain(Path(clinc), domains, storage / "domains.csv")}
        # The closed form does not see how classes are spread over tasks: it ends where it does on the drawn tasks.
        rows = tuple(row for row in HEADLINE if row.learner != "analytic")
        names.append(DataSet("clinc-domains", "CLINC150, 10 domains of 15 intents", "clinc", by_domain, rows))
    shuffled = {**intents, "num_tasks": 10}
    tail = {**shuffled, "long_tail": {"imbalance_factor": 100}}
    digits = {
        "source": {"kind": "files", "path": str(_write_digits(storage / "digits.csv")), "label_column": "digit"},
        "scenario": "class_incremental",
        "num_tasks": 5,
    }
    reviews = {"source": {"kind": "reviews"}, "scenario": "domain_incremental"}
    return [
        *names,
        DataSet("clinc", "CLINC150, 10 tasks of 15 intents drawn by the seed", "clinc", shuffled, studies),
        DataSet("clinc-tail", "CLINC150, long tail with imbalance factor 100", "clinc", tail, HEADLINE),
        DataSet(
            "clinc-ace",
            "CLINC150, 10 tasks of 15 intents: asymmetric cross-entropy under SGD, and closed forms",
            "clinc-ace",
            shuffled,
            REMEMBERING,
        ),
        DataSet(
            "clinc-tail-ace",
            "CLINC150, long tail with imbalance factor 100, tuned on long tails",
            "clinc-tail-ace",
            tail,
            TAIL,
        ),
        DataSet("reviews", "Reviews, 4 domains of 2 classes", "reviews", reviews, studies),
        DataSet("digits", "Digits, 5 tasks of 2 classes", "digits", digits, studies, ("pixel_*",)),
    ]


def clinc_source(clinc: str, storage: Path) -> dict[str, Any]:
    """CLINC150 of the hub, or of the authors' file as a table below `storage`, as a source of tasks."""
    if not Path(clinc).exists():
        return {"kind": "hub", "id": clinc, "subset": "plus", "label_column": "intent", "out_of_scope_label": "oos"}
    splits = json.loads(Path(clinc).read_bytes())  # {"train": [[text, intent], …], "oos_train": […], …}
    rows = [
        (f"{split}-{number}", *row, split.removeprefix("oos_"))
        for split, rows in splits.items()
        for number, row in enumerate(rows, start=1)
    ]
    path = storage / f"{Path(clinc).stem}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["id", "text", "label", "split"]).to_csv(path, index=False)
    return {"kind": "files", "path": str(path), "id_column": "id", "out_of_scope_label": "oos"}


def _by_domain(clinc: Path, domains: Path, path: Path) -> dict[str, Any]:
    """CLINC150 as a table with a column of domains, in the order of the domains; rows of no domain are left out."""
    domain_of = {name: domain for domain, names in json.loads(domains.read_bytes()).items() for name in names}
    splits = json.loads(clinc.read_bytes())
    table = pd.DataFrame(
        [(*row, split) for split, rows in splits.items() for row in rows], columns=["text", "label", "split"]
    )
    table = table.assign(domain=table["label"].map(domain_of)).dropna()
    order = table["domain"].map({domain: number for number, domain in enumerate(dict.fromkeys(domain_of.values()))})
    path.parent.mkdir(parents=True, exist_ok=True)
    table.iloc[order.argsort(kind="stable")].to_csv(path, index=False)
    return {"kind": "files", "path": str(path), "task_column": "domain"}


def _write_digits(path: Path) -> Path:
    """scikit-learn's digits as a table."""
    images, labels = load_digits(return_X_y=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(images.astype(int)).add_prefix("pixel_").assign(digit=labels)
    table.to_csv(path, index=False)
    return path

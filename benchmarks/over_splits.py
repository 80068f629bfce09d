"""A configuration of `kcm run` over splits of its rows: what every collaborator saves and loses on test rows.

Each split is a seed of the run: it draws the split of the rows, the folds and the random units. Vectors are computed
once, for all splits. Stages up to the search run as in `kcm run`; a certificate is a first look at the certify rows.
Shapes: N rows.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sequences import build_sequence
from benchmarks.study.features import cached_features
from benchmarks.study.seeds import mean_and_ends
from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Policy
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.certification.ledger import question_delta
from kcm.encoders import Encoder, EncoderConfig
from kcm.encoders.runtime import resolved
from kcm.inputs.content import Content, Part, contents
from kcm.learners.training.stream import ParquetRows
from pipelines.batch.outcome_table import ScoredTable
from pipelines.config import RunConfig
from pipelines.run import SEARCH, run_context
from pipelines.stages.evaluate import scored_table
from pipelines.stages.stage import run_stages
from pipelines.store.artefact import Artefact
from pipelines.training.artefacts import Tuned

NUM_SPLITS = 10
LOSSES = (0.005, 0.01)  # at which frontiers are compared
NUM_TIMED = 128  # rows that encoders are timed on
Cell = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


class Kept(EncoderConfig):
    """An encoder that looks up the vectors which another one computed before."""

    encoder: EncoderConfig
    file: Path

    @property
    def reads(self) -> frozenset[Part]:
        """The parts that the other encoder reads."""
        return self.encoder.reads

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """The vectors of the file."""
        return KeptEncoder(self.file, self.identity(assets_dir), self.reads)

    def identity(self, assets_dir: Path) -> str:
        """The identity of the other encoder."""
        return self.encoder.identity(assets_dir)


class KeptEncoder:
    """Looks up vectors in a file with `keys` [N] of contents and their `vectors` [N, D]."""

    def __init__(self, file: Path, identity: str, reads: frozenset[Part]) -> None:
        self.identity, self.reads = identity, reads
        with np.load(file) as stored:
            self._vectors_ND = stored["vectors"]
            self._row = {key: row for row, key in enumerate(stored["keys"].tolist())}
        self.dim = int(self._vectors_ND.shape[1])

    def read(self, content: Content) -> Content:
        """The content itself: nothing is decoded."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, D]. KeyError for a content that was not encoded before."""
        rows = [self._row[content.key] for content in inputs]
        return np.asarray(self._vectors_ND[rows])


def with_kept_vectors(config: RunConfig, folder: Path, splits: int) -> RunConfig:
    """The same run on vectors in `folder`, which are computed if they are missing."""
    rows = all_contents(config, splits)

    def kept(encoder: EncoderConfig) -> Kept:
        identity, load = encoder.identity(config.assets_path), lambda: encoder.build(config.assets_path)
        vectors = cached_features(rows, load, identity, folder)
        file = folder / f"{identity}.npz"
        np.savez(file, keys=[content.key for content in vectors], vectors=np.stack(list(vectors.values())))
        return Kept(kind="benchmarks.over_splits:Kept", encoder=encoder, file=file.absolute())

    large = config.large.with_backbone(lambda encoder: kept(resolved(encoder, config.assets_path)))
    return config.model_copy(update={"encoder": kept(resolved(config.encoder, config.assets_path)), "large": large})


def all_contents(config: RunConfig, splits: int = 1) -> list[Content]:
    """What the rows of all splits hold, those included that a split's long tail leaves out.

    Of rows with equal contents and different labels, the salt decides which stays.
    """
    by_key: dict[str, Content] = {}
    for seed in range(splits):
        tasks = config.tasks.model_copy(update={"long_tail": None, "salt": seed})
        sequence = build_sequence(tasks, config.assets_path, seed, reads=config.encoder.reads)
        for task in sequence.tasks:
            rows = contents(task.rows["text"].to_pylist(), task.rows["image"].to_pylist())
            by_key |= {content.key: content for content in rows}
    return list(by_key.values())


def cost_ratio(config: RunConfig) -> float:
    """CPU seconds of the small side's encoder over those of the large model's, each the best of three passes."""
    rows = all_contents(config)
    rows = [rows[row] for row in np.random.default_rng(0).choice(len(rows), NUM_TIMED, replace=False)]
    assert config.large.backbone is not None
    seconds = []
    for encoder in (config.encoder, config.large.backbone):
        built, passes = resolved(encoder, config.assets_path).build(config.assets_path), []
        for _ in range(3):
            started = time.process_time()
            built.encode(rows)
            passes.append(time.process_time() - started)
        seconds.append(min(passes))
    return seconds[0] / seconds[1]


@dataclass(frozen=True)
class Side:
    """One collaborator of one split: the rows as its gate scores them, and the certified policy."""

    table: ScoredTable
    policy: Policy

    @classmethod
    def of(cls, tuned: Tuned, run: Mapping[str, Artefact], certificate: CertificateConfig) -> Side:
        """A searched policy, certified by a first look."""
        table = scored_table(tuned, run["features"], run["outcomes"])  # type: ignore[arg-type]
        rows = table.rows("validate"), table.rows("certify")
        delta = question_delta(certificate.delta, 1)
        return cls(table, certify_policy(*rows, tuned.policy, certificate, delta=delta)[0])

    @cached_property
    def test(self) -> ScoredOutcomes:
        """The test rows."""
        return self.table.rows("test")

    @property
    def keeps_N(self) -> np.ndarray:
        """Test rows that the small side answers."""
        return self.policy.keep(self.test.score, self.test.task)

    @cached_property
    def frontier(self) -> Frontier:
        """All routes with one threshold for all tasks."""
        return Frontier.of(self.test)

    def figures(self) -> dict[str, float]:
        """As deployed: shares of rows; and what one threshold saves at fixed losses."""
        at_losses = {f"saved_at_{loss}": 1 - self.frontier.cheapest(loss).call_rate for loss in LOSSES}
        ends = {"small": self.frontier.small_accuracy, "large": self.frontier.large_accuracy}
        return ends | route(self.test, self.keeps_N) | at_losses | {"area": self.frontier.area()}


def route(rows: ScoredOutcomes, keeps_N: np.ndarray) -> dict[str, float]:
    """Share of calls saved and of accuracy lost by a route."""
    right_N = np.where(keeps_N, rows.small_correct, rows.large_correct)
    return {"saved": float(keeps_N.mean()), "lost": float(rows.large_correct.mean() - right_N.mean())}


More = Callable[[Mapping[str, Any], Mapping[str, Side], RunConfig], Mapping[str, Any]]


def measured(config: RunConfig, more: More | None = None) -> Cell:
    """The figures of one split; `more` are further ones, of the run's artefacts and its sides."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"storage_path": Path(folder)})
        stages = [stage.of(config) for stage in SEARCH]
        with run_context(config, stages) as context:
            run: dict[str, Any] = dict(run_stages(stages, context))
        tuned = run["tune"]
        found = {name: tuned.load(name) for name in config.collaborators}
        sides = {name: Side.of(side, run, config.certificate) for name, side in found.items()}
        cell = {name: side.figures() for name, side in sides.items()}
        for control in set(sides) - {"kcm"}:
            loss = max(0.0, cell[control]["lost"])
            theirs, ours = (sides[name].frontier.cheapest(loss).call_rate for name in (control, "kcm"))
            cell[control]["kcm_saves_more"] = theirs - ours
        rows = {split: len(sides["kcm"].table.rows(split)) for split in ("certify", "test")}
        rows["train"] = run["features"].num_rows("train")
        forms = {name: side.collaborator.form for name, side in found.items()}
        further = more(run, sides, config) if more else {}
    return {"rows": rows, "forms": forms, "sides": cell, **further, "cpu_s": time.process_time() - started}


def by_class_size(run: Mapping[str, Any], sides: Mapping[str, Side], config: RunConfig) -> dict[str, Any]:
    """Test accuracy of small, large and cascade on classes with many, medium and few train rows, where there are any.

    The bands are those of Liu et al. (CVPR 2019, arXiv 1904.05160): over 100, 20 to 100, and under 20.
    """
    features, counts = run["features"], Counter[int]()
    for number, task in enumerate(features.names.tasks):
        rows = ParquetRows(task, features.fetched(number), run["outcomes"].fetched(number))
        counts.update(rows.label_counts("train"))
    sizes: dict[str, Any] = {}
    for name, side in sides.items():
        table, test = side.table.table, side.test
        count_N = np.array([counts[label] for label in table.label[side.table.mask("test")].tolist()])
        bands = {"many": count_N > 100, "medium": (count_N >= 20) & (count_N <= 100), "few": count_N < 20}
        cascade_N = np.where(side.keeps_N, test.small_correct, test.large_correct)
        sides_N = {"small": test.small_correct, "large": test.large_correct, "cascade": cascade_N}
        sizes[name] = {
            band: {who: float(right_N[in_band].mean()) for who, right_N in sides_N.items()}
            for band, in_band in bands.items()
            if in_band.any()
        }
    return {"sizes": sizes}


def over_splits(config: RunConfig, folder: Path, more: More | None = None, splits: int = NUM_SPLITS) -> Iterator[Cell]:
    """The figures of every split, from the disk if they exist."""
    kept = None
    for seed in range(splits):
        file = folder / f"{config.name}-{seed}.json"
        if not file.exists():
            kept = kept or with_kept_vectors(config, folder / "vectors", splits)
            tasks = kept.tasks.model_copy(update={"salt": seed})
            cell = measured(kept.model_copy(update={"seed": seed, "tasks": tasks}), more)
            file.write_text(json.dumps(cell), encoding="utf-8")
        yield dict(json.loads(file.read_text(encoding="utf-8")))


def interval(values: Sequence[float], rows: Mapping[str, int]) -> list[float]:
    """The mean over splits and its 95% interval, which is wider because splits share rows."""
    return mean_and_ends(values, rows["test"] / (rows["train"] + rows["certify"]))


def summary(cells: Rows) -> dict[str, Any]:
    """By collaborator the means, and for each control by how much KCM's figures exceed its own."""
    names, rows = list(cells[0]["sides"]), cells[0]["rows"]
    figures: dict[str, Any] = {"rows": rows, "splits": len(cells), "sides": {}}
    for name in names:
        column = {key: np.array([cell["sides"][name][key] for cell in cells]) for key in cells[0]["sides"][name]}
        side: dict[str, Any] = {key: float(values.mean()) for key, values in column.items() if key != "kcm_saves_more"}
        side |= {"form": " or ".join(sorted({cell["forms"][name] for cell in cells}))}
        side |= {"saved_interval": interval(column["saved"], rows), "lost_interval": interval(column["lost"], rows)}
        if name != "kcm":
            ours = {key: np.array([cell["sides"]["kcm"][key] for cell in cells]) for key in cells[0]["sides"]["kcm"]}
            side["kcm_minus"] = {key: interval(ours[key] - column[key], rows) for key in ours}
            side["kcm_minus"]["saved_at_its_loss"] = interval(column["kcm_saves_more"], rows)
        figures["sides"][name] = side
    return figures | {"cpu_s": float(np.mean([cell["cpu_s"] for cell in cells]))}

"""A new domain on real reviews: what one turn saves, beside runs that had all labels, and what it costs.

Three cascades are measured on the same tweets, which none of them has seen: the champion that never met a tweet; the
challenger of one turn, with labels for a fifth of the traffic and on its disagreements; and a run of all four domains
with the label of every row. A second turn has the labels of all its traffic, too. All settings are fixed here before
any of these tweets is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from loop_earliest import first_certified
from loop_scene import Scene, Taken
from rich.console import Console

from kcm.api.cascade import Cascade
from kcm.bundle.answers import Answer, Input
from kcm.certify.traffic import decisions_needed
from kcm.inputs.content import Content
from kcm.metrics.intervals import paired_difference
from kcm.tasks.hashing import shuffled
from kcm.tasks.readers.reviews import read_reviews
from kcm.tasks.rows import SourceRow
from pipelines.loop.recertify import LineageLedger
from pipelines.loop.state import LoopState

OLD, NEW = ("reviews", "movies", "editorials"), "tweets"
OLD_ROWS, TRAFFIC, HELD_OUT = 600, 1500, 500  # of each old domain; of tweets; of tweets that nobody learns
LABELLED = 5
# So few rows, and mpnet in int8, that the whole takes minutes: 600 certify decisions at a share of .8 afford a
# disagreement of 1% at epsilon .03. The rest is the demonstration's own.
VALUES = {
    "certificate.epsilon": 0.03,
    "tune.num_trials": 2,
    "large.encoder": "{model: sentence-transformers/all-mpnet-base-v2, precision: int8}",
    "tasks.max_rows_per_task": "null",
    "update.gates": "{max_old_task_loss: 0.05, max_cost: 9, max_latency: 9}",
}

console = Console(width=140)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a cascade does with the tweets that nobody learned, [N]."""

    kept: np.ndarray
    correct: np.ndarray

    @property
    def line(self) -> str:
        """The figures in one line."""
        return f"{100 * self.kept.mean():.1f}% of calls saved, accuracy {100 * self.correct.mean():.1f}%"


def domain_rows(folder: Path, assets: Path, seed: int) -> list[tuple[str, str, str, str]]:
    """The rows of the table."""
    known = {row.id: row for row in read_reviews(assets)}
    tweets = shuffled((name for name, row in known.items() if row.task == NEW), 0, "tweets")
    measured = [known[name] for name in tweets[:HELD_OUT]]
    traffic = [known[name] for name in tweets[HELD_OUT : HELD_OUT + TRAFFIC]]
    old = [
        known[name]
        for domain in OLD
        for name in shuffled((name for name, row in known.items() if row.task == domain), 0, domain)[:OLD_ROWS]
    ]
    scene = Scene(folder / "loop", assets, VALUES | {"seed": seed, **_source(folder / "old.csv", old)})
    whole = Scene(folder / "whole", assets, scene.values | _source(folder / "all.csv", [*old, *traffic]))
    for each in (scene, whole):
        each.folder.mkdir(parents=True, exist_ok=True)
    scene.result_of("run")
    planned = _planned(scene)
    console.print(f"planned: a first certificate after {planned:,} decisions")
    found = {"champion": _measured(scene.cascade(), measured)}
    requests = scene.play(traffic)
    scene.send_labels(requests, LABELLED)
    scene.save("played")
    turn, took = scene.result_of("update")
    earliest = first_certified(scene.config, LoopState.of(scene.config))
    truth = {row.text: str(row.label) for row in traffic}
    turn, labels = _labelled(scene, turn, truth)
    found["one turn"] = _measured(scene.cascade(turn["version"]), measured)
    scene.restore("played")
    scene.send_labels(requests, 1)
    all_labels, _ = _labelled(scene, scene.result_of("update")[0], truth)
    found["one turn with all labels"] = _measured(scene.cascade(all_labels["version"]), measured)
    _, run_took = whole.result_of("run")
    found["a run with all labels"] = _measured(whole.cascade(), measured)
    for name, each in found.items():
        console.print(f"{name}: {each.line}")
    return _rows(found, turn, labels, (planned, earliest), (took, run_took))


def _rows(
    found: Mapping[str, Measured],
    turn: Mapping[str, Any],
    labels: int,
    decisions: tuple[int, int | None],
    took: tuple[Taken, Taken],
) -> list[tuple[str, str, str, str]]:
    before, after, all_labels, whole = found.values()
    certificate = turn["certificate"]
    valid = (
        f"certified (at most {100 * certificate['bound']:.1f} points lost)" if certificate["valid"] else "uncertified"
    )
    planned, earliest = decisions
    ratio = "never" if earliest is None else f"{earliest:,}, {earliest / planned:.2f} times"
    one, run = took
    return [
        (
            "calls saved on the new domain, before -> after one turn",
            "rises",
            "",
            f"{before.line} -> {after.line}",
        ),
        ("... its certificate, and the labels given on disagreements", "valid", "", f"{valid}, {labels} labels"),
        (
            "... a turn with all labels, minus that",
            "",
            "3 points",
            f"{all_labels.line}; {_beside(all_labels, after)}",
        ),
        ("... a run with all labels, minus that", "", "3 points", f"{whole.line}; {_beside(whole, after)}"),
        ("decisions for a first certificate: planned, took", "1.5 times", "", f"{planned:,}, {ratio}"),
        (
            "whole update against whole run, CPU seconds",
            "0.5",
            "0.25",
            f"{one.cpu_s / run.cpu_s:.2f}: {one.cpu_s:.0f} s of {run.cpu_s:.0f} s",
        ),
    ]


def _beside(one: Measured, two: Measured) -> str:
    difference = paired_difference(one.kept, two.kept, level=0.95)
    assert difference is not None
    low, mean, high = (100 * each for each in (difference.low, difference.estimate, difference.high))
    return f"{mean:+.1f} points of calls ({low:+.1f} to {high:+.1f})"


def _source(file: Path, rows: Sequence[SourceRow]) -> dict[str, str]:
    """Rows as a table, and the configuration of a source that reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(row, name) for row in rows] for name in ("id", "text", "label", "task")}
    groups = [row.group or row.id for row in rows]  # a table leaves none empty
    pd.DataFrame(columns | {"group": groups}).to_csv(file, index=False)
    return {"tasks.source": f"{{kind: files, path: {file}, group_column: group, task_column: task}}"}


def _measured(cascade: Cascade, rows: Sequence[SourceRow]) -> Measured:
    answers = cascade.answer([Input(Content(row.text)) for row in rows])
    good = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(good) == len(rows)
    return Measured(
        np.array([answer.route == "small" for answer in good]),
        np.array([answer.label == row.label for answer, row in zip(good, rows, strict=True)]),
    )


def _labelled(scene: Scene, turn: dict[str, Any], truth: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """The last turn after a person has labelled disagreements until they suffice, and how many."""
    labels = scene.label(truth)
    again, _ = scene.result_of("update") if labels else (turn, None)
    return (again if again["changed"] else turn), labels


def _planned(scene: Scene) -> int:
    """Decisions after which a first certificate is expected, for something that never disagrees."""
    config = scene.config
    assert config.update is not None
    spend = LineageLedger(LoopState.of(config).store.control, config.name).next_spend(config.certificate.delta)
    units = decisions_needed(0.0, config.serve.audit.share, config.certificate.epsilon, spend)
    assert units is not None
    return round(units / config.update.fractions["certify"])

"""A simulation of the loop on a labelled table, before anything is live.

The first champion learns a part of the known labels' rows. The rest of the table is the traffic of a service in this
process. Late labels come in waves. Callers label a share of their items, some wrongly. A person names a wave's labels
once, before its first turn. Run, service, monitor, turns and promotion gates are the product's own. A large model that
is fitted on the table gives its own answers; its head learns new labels from callers' labels.
Answers of any other large model come from the table, so nothing is paid.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa

from benchmarks.simulation.local_service import LocalService, local_service
from benchmarks.simulation.played import PlayedConfig
from benchmarks.simulation.scenario import TURNS, Scenario, Waves, script_of
from kcm.bundle.answers import Input
from kcm.encoders.precomputed import vector_columns
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import PARTS, Content
from kcm.large.base import RecordedAnswers
from kcm.parquet import write_table
from kcm.tasks.rows import SourceRow
from kcm.tasks.units import content_key
from pipelines.cluster.connection import connected
from pipelines.config import RunConfig
from pipelines.loop.config import AUDIT_SHARE, UpdateConfig
from pipelines.loop.turn import update
from pipelines.loop.window.naming import ClassNames
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.serve.log.entries import Feedback
from pipelines.store.artefact import write_json
from pipelines.tracking.config import TrackingConfig

REQUEST = 20  # items
_TRUTH, _FIRST = "truth.parquet", "first.parquet"


@dataclass
class Period:
    """The traffic between two turns, and the outcome of the turn after it.

    `late` items have labels that the champion does not know. The champion kept `late_kept` of them; after
    `noticed_after` of them its alarm told of new classes. `right` counts the cascade's right answers,
    `kept_right` the right answers among the `kept` items, `labels` the callers' labels. `saved_after` is the share of
    the window's unlearned decisions that the turn's challenger keeps.
    """

    wave: int
    version: str
    items: int = 0
    right: int = 0
    kept: int = 0
    kept_right: int = 0
    late: int = 0
    late_kept: int = 0
    labels: int = 0
    noticed_after: int | None = None
    saved_after: float | None = None
    promoted: bool = False
    reason: str = ""


def simulate(config: RunConfig, waves: Waves, scenario: Scenario, reporter: Reporter | None = None) -> dict[str, Any]:
    """Play waves of late labels on the rows of a run's source; writes `simulation.json` and its page.

    All files are in `simulation/NAME` of the storage's local folder, which is emptied first. Raises ConfigError for
    late labels that the table lacks and for rows without text or picture, DataError for too few rows.
    """
    rows = _rows_by_label(config)
    script = script_of(rows, waves, scenario.first, config.seed)
    folder = config.storage_folder / "simulation" / config.name
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    simulated = _configured(config, [row for label in rows.values() for row in label], script.first, scenario, folder)
    with connected(config.cluster):
        run(simulated, reporter=reporter)
        periods = asyncio.run(_play(simulated, waves, scenario, script.periods, reporter))
    result = {
        "name": config.name,
        "scenario": scenario.model_dump(),
        "played": not config.large.fits_on_train,
        "waves": [list(wave) for wave in waves],
        "first_rows": len(script.first),
        "periods": [asdict(period) for period in periods],
    }
    path = folder / "simulation.json"
    write_json(path, result)
    return result | {"result_path": str(path)}


def _rows_by_label(config: RunConfig) -> dict[str, list[SourceRow]]:
    """The labelled rows by their label, each content once."""
    source = config.tasks.source.build(config.assets_path, vector_columns(config.encoder))
    rows: dict[str, dict[str, SourceRow]] = {}
    for row in source.records:
        if not (row.text or row.image):
            raise ConfigError("a simulation plays texts and pictures, and these rows have neither", where="encoder")
        if row.label and row.label != source.out_of_scope_label:
            rows.setdefault(row.label, {})[content_key(_content(row))] = row
    return {label: list(rows_by_id.values()) for label, rows_by_id in rows.items()}


def _content(row: SourceRow) -> Content:
    return Content(row.text or "", row.image or b"")


def _configured(
    config: RunConfig, rows: Sequence[SourceRow], first: Sequence[SourceRow], scenario: Scenario, folder: Path
) -> RunConfig:
    """The run's configuration on the first table, with a storage of its own and a large model that costs nothing."""
    columns = {
        name: [getattr(row, name) or None for row in first] for name in ("text", "image", "label", "group", "task")
    }
    columns = {name: values for name, values in columns.items() if any(values)}
    write_table(pa.table(columns), folder / _FIRST)
    source: dict[str, str | None] = {"kind": "files", "path": str(folder / _FIRST)}
    source |= {f"{name}_column": name if name in columns else None for name in ("text", "image", "group", "task")}
    large: Any = config.large
    if not config.large.fits_on_train:
        large = _played(config, rows, folder / _TRUTH)
        large |= {"parts": [part for part in PARTS if part in columns], "wrong": scenario.large_error}
    serve, feedback = config.serve, config.serve.feedback
    values = dict(config) | {
        "storage_path": folder / "storage",
        "tracking": TrackingConfig(),
        "tasks": dict(config.tasks) | {"source": source},
        "large": large,
        "serve": serve.model_copy(
            update={
                "application": config.application,
                "audit": serve.audit.model_copy(
                    update={"share": serve.audit.share or AUDIT_SHARE, "seed": config.seed}
                ),
                "feedback": feedback.model_copy(update={"url": None, "store_payloads": "all", "new_labels": "keep"}),
            }
        ),
        "update": (config.update or UpdateConfig()).model_copy(update={"approval": "auto"}),
    }
    return RunConfig.model_validate(values)


def _played(config: RunConfig, rows: Sequence[SourceRow], file: Path) -> dict[str, Any]:
    """The large model that is played from `file`; writes true labels and recorded answers of the rows to it."""
    answers = _recorded(config, sorted({str(row.label) for row in rows}))
    truth = {
        "key": [content_key(_content(row)) for row in rows],
        "label": [row.label for row in rows],
        "said": pa.array([answers.get(str(row.id)) for row in rows], pa.string()),
    }
    write_table(pa.table(truth), file)
    return {"adapter": f"{PlayedConfig.__module__}:{PlayedConfig.__qualname__}", "path": file}


def _recorded(config: RunConfig, labels: Sequence[str]) -> dict[str, str]:
    """A recorded large model's answers to rows, by id; empty for any other model, whose answers would cost money."""
    model = config.large.build(labels, config.assets_path) if config.large.is_recorded else None
    tables = model.tables() if isinstance(model, RecordedAnswers) else ()
    rows = (row for table in tables for row in table.select(["id", "label"]).to_pylist())
    return {row["id"]: labels[row["label"]] for row in rows if row["label"] >= 0}


async def _play(
    config: RunConfig,
    waves: Waves,
    scenario: Scenario,
    traffic: Sequence[Sequence[SourceRow]],
    reporter: Reporter | None,
) -> list[Period]:
    """Every period of traffic, and the turn after it."""
    periods, people = [], random.Random(config.seed)
    names = ClassNames.of(config)
    async with local_service(config) as service:
        for number, rows in enumerate(traffic):
            await service.follow()
            period = Period(number // TURNS, service.version.name)
            for start in range(0, len(rows), REQUEST):
                await _request(service, rows[start : start + REQUEST], period, scenario, people)
            label_names = service.version.small_side.bundle.label_names
            if number % TURNS == 0:
                names.replace([*label_names, *waves[period.wave]], label_names, where="the wave")
            try:
                turn = await asyncio.to_thread(update, config, reporter=reporter)
            except DataError as error:
                turn = {"promoted": False, "reason": str(error)}
            period.saved_after = turn.get("calls_saved_after")
            period.promoted, period.reason = bool(turn.get("promoted")), str(turn["reason"])
            periods.append(period)
    return periods


async def _request(
    service: LocalService, rows: Sequence[SourceRow], period: Period, scenario: Scenario, people: random.Random
) -> None:
    """Send rows to the service, count outcomes, and label some items as callers do."""
    request_id, side = str(uuid.UUID(int=people.getrandbits(128))), service.version.small_side
    label_names = side.bundle.label_names
    response = await service.predict([Input(_content(row)) for row in rows], request_id)
    labels = []
    for place, (row, answer) in enumerate(zip(rows, response.answers, strict=True)):
        truth, is_small = str(row.label), answer.route == "small"
        period.items += 1
        period.right += answer.label == truth
        period.kept += is_small
        period.kept_right += is_small and answer.label == truth
        if truth not in label_names:
            period.late += 1
            period.late_kept += is_small
        if people.random() < scenario.feedback:
            label = people.choice(label_names) if people.random() < scenario.error else truth
            labels.append(Feedback(place, label))
    novelty = service.version.novelty
    if novelty and novelty.alarm and period.noticed_after is None:
        period.noticed_after = period.late
    if labels:
        await service.feedback(request_id, None, labels)
        period.labels += len(labels)

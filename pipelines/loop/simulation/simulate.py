"""The loop played on a labelled table before anything is live.

A part of the known labels' rows makes the first champion; the rest of the table is the traffic of a service in this
process. Late labels come in waves, callers label a share of what they asked, some wrongly, and a person names a wave's
labels once, before its first turn. Run, service, monitor, turns and promotion gates are those of real use. A large
model that is fitted on the table answers itself, and the person labels groups of new items, from which its head learns;
any other is played from the table, so that nothing is paid.
"""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa

from kcm.bundle.answers import Input
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import PARTS, Content
from kcm.parquet import write_table
from kcm.tasks.rows import SourceRow
from kcm.tasks.units import content_key
from pipelines.cluster.connection import connected
from pipelines.config import RunConfig
from pipelines.loop.config import AUDIT_SHARE, UpdateConfig
from pipelines.loop.simulation.local_service import LocalService, local_service
from pipelines.loop.simulation.played import PlayedConfig
from pipelines.loop.simulation.scenario import TURNS, Scenario, Waves, script_of
from pipelines.loop.turn import update
from pipelines.loop.window.groups import ItemGroup, new_groups
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
    """The traffic between two turns, and what the turn after it came to.

    `late` items have labels that the champion does not know; `late_kept` of them it answered by itself, and from
    `noticed_after` of them on it escalates what lies far from all known classes. `right` counts right answers of the
    cascade, `kept_right` those among the `kept` items, `labels` what callers gave. `saved_after` is the share of the
    window's unlearned decisions that the turn's challenger keeps.
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
    """Play waves of late labels on the rows of a run's source, and write `simulation.json` and a page beside it.

    All that is made lies in `simulation/NAME` of the storage's local folder, which is emptied before. Raises
    ConfigError for late labels that the table lacks and for rows without text or picture, DataError for too few rows.
    """
    rows = _rows_by_label(config)
    script = script_of(rows, waves, scenario.first, config.seed)
    folder = config.storage_folder / "simulation" / config.name
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    played = _configured(config, [row for label in rows.values() for row in label], script.first, scenario, folder)
    with connected(config.cluster):
        run(played, reporter=reporter)
        periods = asyncio.run(_play(played, waves, scenario, script.periods, reporter))
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
    source = config.tasks.source.build(config.assets_path, config.encoder.vector_columns)
    rows: dict[str, dict[str, SourceRow]] = {}
    for row in source.records:
        if not (row.text or row.image):
            raise ConfigError("a simulation plays texts and pictures, and these rows have neither", where="encoder")
        if row.label and row.label != source.out_of_scope_label:
            rows.setdefault(row.label, {})[content_key(_content(row))] = row
    return {label: list(found.values()) for label, found in rows.items()}


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
    """The large model that is played from `file`, which gets what is true of the rows and what was said of them."""
    said = _recorded(config, sorted({str(row.label) for row in rows}))
    truth = {
        "key": [content_key(_content(row)) for row in rows],
        "label": [row.label for row in rows],
        "said": pa.array([said.get(str(row.id)) for row in rows], pa.string()),
    }
    write_table(pa.table(truth), file)
    return {"adapter": f"{PlayedConfig.__module__}:{PlayedConfig.__qualname__}", "path": file}


def _recorded(config: RunConfig, labels: Sequence[str]) -> dict[str, str]:
    """What a recorded large model said of rows, by their ids; nothing of another one, which would have to be paid."""
    tables = config.large.answer_tables(labels) if config.large.is_recorded else ()
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
    periods, people, truths = [], random.Random(config.seed), dict[str, str]()
    names = ClassNames.of(config)
    async with local_service(config) as service:
        for number, rows in enumerate(traffic):
            await service.follow()
            period = Period(number // TURNS, service.version.name)
            for start in range(0, len(rows), REQUEST):
                truths |= await _request(service, rows[start : start + REQUEST], period, scenario, people)
            known = service.version.small_side.bundle.label_names
            if number % TURNS == 0:
                for label in waves[period.wave]:
                    names.name(label, known)
            if config.large.fits_on_train:
                _label_groups(names, await asyncio.to_thread(new_groups, config), truths, known)
            try:
                turn = await asyncio.to_thread(update, config, reporter=reporter)
            except DataError as error:
                turn = {"promoted": False, "reason": str(error)}
            period.saved_after = turn.get("calls_saved_after")
            period.promoted, period.reason = bool(turn.get("promoted")), str(turn["reason"])
            periods.append(period)
    return periods


def _label_groups(
    names: ClassNames, groups: Sequence[ItemGroup], truths: Mapping[str, str], known: Collection[str]
) -> None:
    """Give each group of new items the new label that most of them have: a classifier's head learns from items."""
    for group in groups:
        ((label, _),) = Counter(truths[item] for item in group.items).most_common(1)
        if label in names.labels() and label not in known and group.proposal not in (*known, label):
            names.identify(group.proposal, label, known, [group])


async def _request(
    service: LocalService, rows: Sequence[SourceRow], period: Period, scenario: Scenario, people: random.Random
) -> dict[str, str]:
    """Put rows to the service, count what came of them, and label some as callers do; the true label by item."""
    request_id, side = str(uuid.UUID(int=people.getrandbits(128))), service.version.small_side
    known = side.bundle.label_names
    response = await service.predict([Input(_content(row)) for row in rows], request_id)
    labels = []
    for place, (row, answer) in enumerate(zip(rows, response.answers, strict=True)):
        truth, kept = str(row.label), answer.route == "small"
        period.items += 1
        period.right += answer.label == truth
        period.kept += kept
        period.kept_right += kept and answer.label == truth
        if truth not in known:
            period.late += 1
            period.late_kept += kept
        if people.random() < scenario.feedback:
            said = people.choice(known) if people.random() < scenario.error else truth
            labels.append(Feedback(place, said))
    if side.farthest < math.inf and period.noticed_after is None:
        period.noticed_after = period.late
    if labels:
        await service.feedback(request_id, None, labels)
        period.labels += len(labels)
    return {f"{request_id}/{place}": str(row.label) for place, row in enumerate(rows)}

"""Logged traffic from a table, and the routes that are replayed on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.routing.cells import Cells, read_columns
from kcm.routing.config import ReplayColumns
from kcm.routing.frame import RoutingFrame, named_columns
from kcm.routing.replay import Floats, LoggedTraffic, Side, thresholds_by_share
from kcm.routing.routers.head import fit_head
from kcm.routing.routers.inputs import RouterInputs
from kcm.routing.routers.router import FittedRouter
from kcm.routing.table import RoutingTable, read_inputs

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the rows, that are kept where no threshold is given
_FEWEST = 20  # rows that a model of answers is fitted on; of fewer, their mean


@dataclass(frozen=True)
class ReplayFrame:
    """A log, what was seen in it, and the scores of the routes to replay."""

    frame: RoutingFrame
    traffic: LoggedTraffic
    keep: Floats | None

    @classmethod
    def open(
        cls,
        path: Path,
        columns_file: Path | None,
        overrides: Mapping[str, Any],
        encoder: str | None,
        assets_dir: Path,
        router_folder: Path | None = None,
    ) -> ReplayFrame:
        """Read the log, of which `named_columns` says what its columns are.

        Raises KcmError for anything that cannot be used: a log without propensities, and rows that had no chance.
        """
        router = FittedRouter.read(router_folder) if router_folder else None
        columns = named_columns(ReplayColumns, router, columns_file, overrides)
        columns.check()
        data = read_columns(path)
        table, cells = read_inputs(data, columns, str(path))
        frame = RoutingFrame(table, columns, encoder, assets_dir, router)
        has_inputs = any(each is not None for each in (table.confidence, table.text, table.features))
        traffic = _traffic(table, cells, data, columns, frame.inputs if has_inputs else None)
        keep = cells.numbers(columns.keep, "a probability of keeping", low=0, high=1) if columns.keep else None
        return cls(frame, traffic, keep)

    def replay(self, thresholds: Sequence[float]) -> dict[str, Any]:
        """Every route's figures: those of `thresholds` on the score, else some of them, and those of `keep`."""
        routes: dict[str, Floats] = {}
        if self.frame.router or self.frame.table.confidence is not None:
            score_N = self.frame.scores
            for threshold in thresholds or thresholds_by_share(score_N, SHARES):
                routes[f"score > {threshold:.6g}"] = (score_N > threshold).astype(np.float64)
        elif thresholds:
            raise DataError("there is no score to compare with a threshold", where="columns", hint="Name a score")
        if self.keep is not None:
            routes["column keep"] = self.keep
        if not routes:
            raise DataError("there is no route to replay", where="columns", hint="Name a score or keep, or a router")
        traffic = self.traffic
        return {
            "num_rows": len(traffic),
            "num_asked": int(traffic.large.asked.sum()),
            "least_propensity": float(min(traffic.large.probability.min(), traffic.small.probability.min())),
            "loss": "accuracy" if traffic.differs is None else "disagreement",
            "routes": [{"route": name} | traffic.replay(keep_N) for name, keep_N in routes.items()],
            "notes": [*self.frame.table.notes, *self.frame.notes],
        }


def _traffic(
    table: RoutingTable, cells: Cells, data: pd.DataFrame, columns: ReplayColumns, inputs: RouterInputs | None
) -> LoggedTraffic:
    seen = _single(cells, columns) if columns.route else _both(table, cells, data, columns)
    modelled = [_modelled(side, inputs, table.group) for side in (seen.small, seen.large)]
    differs_model = None
    if seen.differs is not None:
        both = seen.small.asked & seen.large.asked
        if not both.any():
            raise DataError("no row has the answers of both sides", where="log", hint="Name the label")
        differs_model = _model(both, seen.differs, inputs, table.group).clip(0, 1)
    return replace(seen, small=modelled[0], large=modelled[1], differs_model=differs_model, group=table.group)


def _single(cells: Cells, columns: ReplayColumns) -> LoggedTraffic:
    """A log that tells one side of every row."""
    assert columns.route is not None
    assert columns.propensity is not None
    assert columns.correct is not None
    route = cells.required(columns.route, cells.strings(columns.route), "a route")
    cells.refuse(columns.route, ~np.isin(route, ("small", "large")), route, "a route must be small or large")
    propensity = cells.numbers(columns.propensity, "a propensity", low=0, high=1)
    impossible = (propensity == 0) | (propensity == 1)
    cells.refuse(columns.propensity, impossible, propensity, "both sides must have had a chance: above 0 and below 1")
    correct = cells.truths(columns.correct, columns.correct_at).astype(np.float64)
    cost = cells.numbers(columns.cost, "a cost", low=0) if columns.cost else None
    sides = {}
    for name in ("small", "large"):
        asked = np.asarray(route == name)
        probability = np.where(asked, propensity, 1 - propensity)
        sides[name] = Side(asked=asked, probability=probability, correct=correct, correct_model=correct, cost=cost)
    return LoggedTraffic(small=sides["small"], large=sides["large"])


def _both(table: RoutingTable, cells: Cells, data: pd.DataFrame, columns: ReplayColumns) -> LoggedTraffic:
    """A log with columns for each side; an empty answer was not asked for, unless `asked` says so."""
    sides, answers = {}, {}
    for name, answer, correct, cost, propensity in (
        ("small", columns.small_prediction, columns.small_correct, columns.small_cost, columns.small_propensity),
        ("large", columns.large_prediction, columns.large_correct, columns.large_cost, columns.large_propensity),
    ):
        column = answer or correct
        assert column is not None
        given = ~pd.isna(cells.strings(column))
        asked = cells.truths(columns.asked, None) if columns.asked and name == "large" else given
        if propensity is None:
            cells.refuse(column, ~asked, cells.strings(column), "the small model was not always asked", _PROPENSITY)
        probability = (
            np.ones(len(table)) if propensity is None else cells.numbers(propensity, "a propensity", low=0, high=1)
        )
        rows = np.flatnonzero(given)
        some = Cells(data.iloc[rows].reset_index(drop=True), table.name[rows], "log")
        right = (asked & ~given).astype(np.float64)  # what never came might have been right
        if correct:
            right[rows] = some.truths(correct, columns.correct_at)
        elif columns.label:
            label = some.required(columns.label, some.labels(columns.label), "a label")
            right[rows] = some.labels(answer or "") == label
        if answer:
            answers[name] = cells.labels(answer)
        price = None
        if cost:
            price = np.zeros(len(table))
            price[rows] = some.numbers(cost, "a cost", low=0)
        sides[name] = Side(asked=asked, probability=probability, correct=right, correct_model=right, cost=price)
    if sides["large"].cost is not None and sides["small"].cost is None:
        sides["small"] = replace(sides["small"], cost=np.zeros(len(table)))
    unlabelled = not columns.label and not columns.small_correct
    differs = (answers["small"] != answers["large"]).astype(np.float64) if unlabelled else None
    return LoggedTraffic(small=sides["small"], large=sides["large"], differs=differs)


_PROPENSITY = "Name the column with its small_propensity"


def _modelled(side: Side, inputs: RouterInputs | None, group: NDArray[np.object_] | None) -> Side:
    """The side with models of its correctness and cost."""
    cost = None if side.cost is None else _model(side.asked, side.cost, inputs, group)
    return replace(side, correct_model=_model(side.asked, side.correct, inputs, group).clip(0, 1), cost_model=cost)


def _model(
    asked: NDArray[np.bool_], values: Floats, inputs: RouterInputs | None, group: NDArray[np.object_] | None
) -> Floats:
    """What the inputs tell of `values`, [N], by a routing head; for rows that it was fitted on, out of fold."""
    rows = np.flatnonzero(asked)
    if inputs is None or len(rows) < _FEWEST:
        # Without row i itself: a model that has seen its row would bias DR.
        total, number = values[rows].sum(), len(rows)
        model = np.full(len(values), total / max(1, number))
        model[rows] = (total - values[rows]) / max(1, number - 1)
        return model
    head, left_out = fit_head(inputs.select(rows), values[rows], None if group is None else group[rows])
    model = head.estimate(inputs)
    model[rows] = left_out
    return model

"""Routing between two models, from a frame with their logged answers; neither model is trained or called."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.assets import assets_folder, default_assets
from kcm.cascade.policy import Decision, Policy
from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.routing.config import RequestConfig, RouteColumns
from kcm.routing.frame import RoutingFrame
from kcm.routing.router import FittedRouter
from kcm.routing.table import table_of, unjudged_table

_WHERE = "the frame"


class Router:
    """Decides for every input whether the small model may answer it.

    `encoder` is a model on the hub or a folder, or `none` for hashed words only; default: the model that `kcm assets`
    fetched, if any. `assets` is the folder or bucket it is looked up in; default: KCM_ASSETS, or `assets` in the
    current folder. `seed` draws the splits if the frame names none: 40% of the rows to fit on, 40% to certify with, 20%
    to test on. Splits depend on content, so the same frame may be passed to `fit` and to `certify`.
    """

    def __init__(self, encoder: str | None = None, *, assets: str | Path | None = None, seed: int = 0) -> None:
        self.encoder, self.seed = encoder, seed
        self.assets: Path = assets_folder(assets) if assets else default_assets()
        self.fitted: FittedRouter | None = None
        self.policy: Policy | None = None

    def fit(self, frame: pd.DataFrame, **columns: Any) -> Self:
        """Fit the routing head; `columns` are the fields of `RouteColumns`, such as text and small_correct.

        Raises ConfigError if no column says who was right, DataError for rows that cannot be used.
        """
        route_columns = parse_config(RouteColumns, columns, where="columns")
        routing = RoutingFrame(table_of(frame, route_columns, _WHERE), route_columns, self.encoder, self.assets)
        self.fitted, self.policy = routing.fitted(self.seed)[0], None
        return self

    def certify(self, frame: pd.DataFrame, *, ledger: str | Path | None = None, **request: Any) -> dict[str, Any]:
        """Choose a threshold and certify it; `request` are the fields of `RequestConfig`, such as epsilon and delta.

        Returns the JSON of `kcm route certify`. `predict` then follows the decision. Raises DataError if rows that the
        router was fitted on would certify it.
        """
        request_config = parse_config(RequestConfig, request, where="request")
        columns = self._router.config.columns
        routing = RoutingFrame(table_of(frame, columns, _WHERE), columns, None, self.assets, self._router)
        result = routing.certify(request_config, None if ledger is None else Path(ledger))
        self.policy = Policy(decision=Decision(decision=result["decision"], threshold=result["threshold"]))
        return result

    def scores(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Gate score of every row, [N]; a larger score means less gain from a large call. Answers are not needed."""
        return self._open(frame).scores

    def predict(self, frame: pd.DataFrame) -> NDArray[np.object_]:
        """`small` or `large` for every row, [N], by the certified decision. Raises ConfigError before `certify`."""
        if self.policy is None:
            raise ConfigError("nothing is certified yet", where="Router.predict", hint="Call certify, or use scores")
        routing = self._open(frame)
        return np.where(self.policy.keep(routing.scores), "small", "large").astype(object)

    def _open(self, frame: pd.DataFrame) -> RoutingFrame:
        columns = self._router.config.columns
        return RoutingFrame(unjudged_table(frame, columns, _WHERE), columns, None, self.assets, self._router)

    @property
    def _router(self) -> FittedRouter:
        if self.fitted is None:
            raise ConfigError("the router is not fitted", where="Router", hint="Call fit")
        return self.fitted

"""One table, read once, with gate scores from its own column or from a router, and the commands on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.scored import ScoredOutcomes
from kcm.certification.certificate import Certificate, certificate_curve
from kcm.certification.ledger import Ledger, Look
from kcm.config import parse_config
from kcm.encoders.text import TextEncoder
from kcm.errors import ConfigError, DataError
from kcm.routing import certify as certificates
from kcm.routing.certify import certifying_splits, with_splits
from kcm.routing.config import RequestConfig, RouteColumns
from kcm.routing.inputs import (
    NO_ENCODER,
    Progress,
    RouterInputs,
    categories_of,
    find_encoder,
    router_inputs,
    silent,
)
from kcm.routing.router import FittedRouter, RouterConfig
from kcm.routing.table import RoutingTable, read_table


@dataclass(frozen=True)
class RoutingFrame:
    """A table with its columns, and the router or encoder that reads it."""

    table: RoutingTable
    columns: RouteColumns
    encoder: str | None
    assets_dir: Path
    router: FittedRouter | None = None
    progress: Progress = silent

    @classmethod
    def open(
        cls,
        path: Path,
        columns: Mapping[str, Any],
        encoder: str | None,
        assets_dir: Path,
        router_folder: Path | None = None,
        progress: Progress = silent,
    ) -> RoutingFrame:
        """Read the table; a router knows its columns, which `columns` override.

        An empty name unsets a column that the router uses but the table lacks. Raises KcmError for anything that cannot
        be used, before any work starts.
        """
        router = FittedRouter.read(router_folder) if router_folder else None
        known = router.config.columns.model_dump(exclude_defaults=True) if router else {}
        named = known | {field: None if name == "" else name for field, name in columns.items()}
        route_columns = parse_config(RouteColumns, named, where="columns")
        return cls(read_table(path, route_columns), route_columns, encoder, assets_dir, router, progress)

    @cached_property
    def _encoder(self) -> tuple[TextEncoder | None, str]:
        if self.columns.text is None and self.columns.small_response is None:
            return None, ""
        model = self.router.config.encoder or NO_ENCODER if self.router else self.encoder
        encoder, note = find_encoder(model, self.assets_dir)
        identity = self.router.config.encoder_identity if self.router else None
        if encoder and identity and encoder.identity != identity:
            raise ConfigError(
                f"{encoder.config.model!r} is not the encoder that the router was fitted with",
                where="--router",
                hint="Use the same weights, or fit again",
            )
        return encoder, note

    @cached_property
    def inputs(self) -> RouterInputs:
        """The inputs of a router for every row."""
        is_confidence = self.columns.confidence is not None
        return router_inputs(
            self.table,
            self._encoder[0],
            is_confidence=is_confidence,
            categories=self.categories,
            progress=self.progress,
            cache_dir=self.assets_dir / "encoded",
        )

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The known categories: the router's, or the table's if there is no router."""
        return self.router.config.categories if self.router else categories_of(self.table)

    @property
    def notes(self) -> list[str]:
        """Notes on the encoder for readers of the results."""
        return [self._encoder[1]] if self._encoder[1] else []

    def splits(self, request: RequestConfig) -> NDArray[np.object_]:
        """The split of every row; with a router, the split at the time it was fitted.

        With the table's own score there is nothing to choose. All rows then certify, unless the table has a split or
        the request needs validate rows.
        """
        if self.router:
            return with_splits(self.table, self.router.config.seed)
        if request.needs_validate:
            return with_splits(self.table, request.seed)
        return certifying_splits(self.table, request.seed, credit_wins=request.mode == "auto")

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Gate score of every row. Raises DataError if there is none."""
        if self.router:
            return self.router.scores(self.table, self.inputs)
        if self.table.confidence is None:
            raise DataError(
                "there is no gate score", where="columns", hint="Name a confidence or score column, or give --router"
            )
        return self.table.confidence

    def fitted(self, seed: int) -> tuple[FittedRouter, str, int]:
        """A router fitted on the train rows, or on validate rows if there are none; its split and number of rows."""
        splits = with_splits(self.table, seed)
        split = "train" if (splits == "train").any() else "validate"
        rows = np.flatnonzero(splits == split)
        encoder = self._encoder[0]
        config = RouterConfig(
            columns=self.columns,
            categories=self.categories,
            seed=seed,
            encoder=encoder.config.model if encoder else None,
            encoder_identity=encoder.identity if encoder else None,
            widths=self.inputs.widths,
        )
        fitted = FittedRouter.fit(self.table.select(rows), self.inputs.select(rows), config, self.progress)
        return fitted, split, len(rows)

    def fit(self, seed: int, folder: Path) -> dict[str, Any]:
        """Write the `fitted` router to a folder."""
        router, split, num_rows = self.fitted(seed)
        router.write(folder)
        notes = [*self.table.notes, *self.notes]
        return {"router": str(folder), "split": split, "num_rows": num_rows, "notes": notes}

    def certify(self, request: RequestConfig, ledger: Path | None) -> dict[str, Any]:
        """The certificate, and the metrics of the route on test."""
        splits, scores = self.splits(request), self.scores
        if self.router:
            for split in ("certify", "test"):
                self.router.refuse_fitted(self.table.select(np.flatnonzero(splits == split)), split)
        table = replace(self.table, notes=(*self.table.notes, *self.notes))
        return certificates.certify_table(table, splits, scores, request, Ledger(ledger) if ledger else None)

    def next_look(self, request: RequestConfig, ledger: Path) -> Look:
        """The cost of `certify` as a look; writes nothing."""
        about = certificates.look_at(self.table, self.splits(request), self.scores, request)
        return Ledger(ledger).preview(**about)

    def certificate_path(self, request: RequestConfig, certified: Mapping[str, Any]) -> dict[str, Any]:
        """The tested thresholds of the certificate from `certify`: see `certificate_curve`."""
        fields = {name: value for name, value in certified.items() if name in Certificate.model_fields}
        validate, certify = self._rows("validate", request), self._rows("certify", request)
        promise = certificates.promise_of(request).model_copy(update={"method": certified["mode"]})
        return certificate_curve(Certificate.model_validate(fields), validate or certify, certify, promise)

    def _rows(self, split: str, request: RequestConfig) -> ScoredOutcomes:
        """The rows of a split with their gate scores."""
        rows = np.flatnonzero(self.splits(request) == split)
        return self.table.select(rows).scored(self.scores[rows])

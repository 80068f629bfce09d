"""A fitted router: the head, its inputs, and the out-of-fold scores of the rows that it was fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from kcm.bundle.sealed_folder import SealedFolder, sealing, write_json, write_tensors
from kcm.config import Config
from kcm.errors import ArtefactError, DataError
from kcm.routing.config import RouteColumns
from kcm.routing.head import RoutingHead, fit_head
from kcm.routing.inputs import Progress, RouterInputs, silent
from kcm.routing.table import RoutingTable

MANIFEST, FORMAT = "router.json", 4


class RouterConfig(Config):
    """Everything a router needs to read another table in the same way as the first."""

    columns: RouteColumns
    categories: tuple[str, ...] = Field(description="The categories that the router uses.")
    seed: int = Field(description="Seed of the splits.")
    encoder: str | None = Field(description="The encoder by hub id or folder; null: hashed words alone.")
    encoder_identity: str | None = Field(description="Digest of everything that decides the encoder's output.")
    widths: tuple[int, int, int, int] = Field(
        description="Widths: numbers of a row, features of the encoder, categories, and buckets of hashed words."
    )


@dataclass(frozen=True, eq=False)
class FittedRouter:
    """Gate scores for any rows; for the rows it was fitted on, the out-of-fold scores.

    `items` int64 are the fitted rows' digests, ascending; `left_out` are their scores.
    """

    config: RouterConfig
    model: RoutingHead
    items: NDArray[np.int64]
    left_out: NDArray[np.float64]

    @classmethod
    def fit(
        cls, table: RoutingTable, inputs: RouterInputs, config: RouterConfig, progress: Progress = silent
    ) -> FittedRouter:
        """Fit on every row of `table`; the score is the head's estimate of P(small right) - P(large right).

        `config` describes the `inputs`.
        """
        gain = table.small_correct.astype(np.float64) - table.large_correct
        model, left_out = fit_head(inputs, gain, table.group, progress)
        items, first = np.unique(digests(table.item), return_index=True)
        return cls(config, model, items, left_out[first])

    def scores(self, table: RoutingTable, inputs: RouterInputs) -> NDArray[np.float64]:
        """Gate score of every row, [N]."""
        score_N, (position, is_known) = self.model.estimate(inputs), self._fitted_positions(table)
        score_N[is_known] = self.left_out[position[is_known]]
        return score_N

    def refuse_fitted(self, table: RoutingTable, split: str) -> None:
        """Raise DataError if rows that the router was fitted on would evaluate it."""
        _, is_known = self._fitted_positions(table)
        if is_known.any():
            raise DataError(
                f"{is_known.sum()} {split} rows are among those that the router was fitted on, the first is"
                f" {table.name[np.flatnonzero(is_known)[0]]}",
                where="--router",
                hint="Use other rows, or the table and seed that the router was fitted with",
            )

    def _fitted_positions(self, table: RoutingTable) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        keys = digests(table.item)
        position = np.searchsorted(self.items, keys).clip(max=len(self.items) - 1)
        return position, self.items[position] == keys

    def write(self, folder: Path) -> None:
        """Write a new folder atomically. Raises ArtefactError if it exists."""
        tensors = {"items": torch.from_numpy(self.items), "left_out": torch.from_numpy(self.left_out)}
        with sealing(folder, MANIFEST, FORMAT) as draft:
            write_json(draft / "config.json", self.config.model_dump(mode="json"))
            write_tensors(draft / "model.safetensors", self.model.state_dict())
            write_tensors(draft / "fitted.safetensors", tensors)

    @classmethod
    def read(cls, folder: Path) -> FittedRouter:
        """Read a router from its folder. Raises ArtefactError if it is missing or damaged."""
        if not (folder / MANIFEST).is_file():
            raise ArtefactError("no router here", where=str(folder), hint="Fit one with `kcm route fit`")
        sealed = SealedFolder(folder, MANIFEST, FORMAT)
        config = sealed.config(RouterConfig, "config.json")
        model = RoutingHead(*config.widths)
        model.load_state_dict(sealed.tensors("model.safetensors"))
        tensors = sealed.tensors("fitted.safetensors")
        return cls(config, model, tensors["items"].numpy(), tensors["left_out"].numpy())


def digests(items: Sequence[object] | NDArray[np.object_]) -> NDArray[np.int64]:
    """64 bits of BLAKE2b of every item's name, [N]."""
    raw = b"".join(hashlib.blake2b(str(item).encode(), digest_size=8).digest() for item in items)
    return np.frombuffer(raw, dtype=np.int64)

"""Labelled rows from a data set of the hub, or from the hub's cache if the hub does not answer."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field

from kcm.assets import hub
from kcm.assets.manifest import sha256_of
from kcm.errors import AssetError, DataError
from kcm.inputs.location import Location
from kcm.tasks.readers.columns import FoundTable
from kcm.tasks.readers.files import FileShard, TableSourceConfig, layout_of
from kcm.tasks.rows import split_name
from kcm.tasks.sources import Source


class HubSource(TableSourceConfig):
    """A data set by its id, such as clinc/clinc_oos with the subset plus."""

    id: str = Field(description="Id of the data set, owner/name.")
    subset: str | None = Field(default=None, description="Name of the data set's configuration.")
    revision: str | None = Field(
        default=None, description="Commit, tag or branch; pin it for results that can be repeated."
    )

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        """One table per split of the data set, with class labels as names. Raises DataError if the data set is missing.

        A split with a name other than train, validation, test and the like provides rows for all splits.
        """
        tables = self.tables(assets_dir)
        layout = layout_of(tables, self, vectors)
        layout = replace(layout, classes=_class_names(tables[0].location))
        shards = [FileShard(table.where, table, layout, table.size) for table in tables]
        return Source(self.id, tuple(shards), self.labels, self.out_of_scope_label)

    def tables(self, assets_dir: Path) -> list[FoundTable]:
        """The splits of the data set."""
        return [
            FoundTable(
                Location.of(path),
                f"{self.id}: {split}",
                split,
                split if split_name(split) else "",
                path.stat().st_size,
            )
            for split, path in export(self, assets_dir).items()
        ]


def export(config: HubSource, assets_dir: Path) -> dict[str, Path]:
    """Every split of the data set as a Parquet file below `assets_dir`, in a folder named after the files' content.

    Raises DataError if the data set cannot be loaded.
    """
    root = assets_dir / "hub"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=root) as draft:
        draft_folder = Path(draft) / "splits"
        draft_folder.mkdir()
        try:
            files = hub.export_data_set(config.id, config.subset, config.revision, folder=draft_folder)
        except AssetError as error:
            raise DataError(
                f"cannot load data set {config.id!r}: {error.what}",
                where="source.id",
                hint="Check the id and the network, or give a local file with source.kind = files",
            ) from None
        digest = hashlib.sha256(json.dumps({split: sha256_of(path) for split, path in files.items()}).encode())
        folder = root / digest.hexdigest()[:32]
        with suppress(OSError):  # exists already with the same content
            draft_folder.rename(folder)
    return {split: folder / path.name for split, path in files.items()}


def _class_names(location: Location) -> Mapping[str, tuple[str, ...]]:
    """The names of the classes behind a column's numbers, from the metadata that `datasets` adds to a schema."""
    metadata = (pq.read_schema(location.path).metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return {
        column: tuple(feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }

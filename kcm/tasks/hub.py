"""Labelled rows from a data set of the hub, or from the hub's cache where the hub does not answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets
from pydantic import Field

from kcm.assets import hub
from kcm.errors import AssetError, DataError
from kcm.tasks.columns import ColumnsConfig, Table, to_records
from kcm.tasks.sources import Source, SourceConfig


class HubSource(SourceConfig, ColumnsConfig):
    """A data set by its id, such as clinc/clinc_oos with the subset plus."""

    id: str = Field(description="Id of the data set, owner/name.")
    subset: str | None = Field(default=None, description="Name of the data set's configuration.")
    revision: str | None = Field(
        default=None, description="Commit, tag or branch; pin it for results that can be repeated."
    )

    def build(self, assets_dir: Path) -> Source:
        records = to_records(read_hub(self), self, where=self.id)
        return Source(self.id, records, self.labels, self.out_of_scope_label)


def read_hub(config: HubSource, *, connect_timeout: float = 5.0, timeout: float = 1800.0) -> list[Table]:
    """One table per split of the data set, class labels by their names. Raises DataError when it cannot be loaded."""
    with tempfile.TemporaryDirectory(prefix="kcm-hub-") as folder:
        try:
            files = hub.export_data_set(
                config.id,
                config.subset,
                config.revision,
                folder=Path(folder),
                connect_timeout=connect_timeout,
                timeout=timeout,
            )
        except AssetError as error:
            raise DataError(
                f"cannot load data set {config.id!r}: {error.what}",
                where="source.id",
                mend="Check the id and the network, or give a local file with source.kind = files",
            ) from None
        return [_table(split, path) for split, path in files.items()]


def _table(split: str, path: Path) -> Table:
    data = datasets.Dataset.from_parquet(str(path), keep_in_memory=True, cache_dir=str(path.parent / "cache"))
    rows = data.to_list()
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                # -1 is how data sets of the hub write "not labelled"
                row[column] = feature.int2str(row[column]) if row[column] is not None and row[column] >= 0 else None
    return Table(split, tuple(data.column_names), rows, split)

"""Labelled rows from a data set of the hub, or from the hub's cache if the hub does not answer."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from kcm.assets import hub
from kcm.assets.manifest import sha256_of
from kcm.errors import AssetError, DataError
from kcm.inputs.location import Location
from kcm.tasks.readers.columns import FoundTable
from kcm.tasks.readers.files import TableSourceConfig
from kcm.tasks.rows import split_name


class HubSource(TableSourceConfig):
    """A data set by its id, such as clinc/clinc_oos with the subset plus."""

    id: str = Field(description="Id of the data set, owner/name.")
    subset: str | None = Field(default=None, description="Name of the data set's configuration.")
    revision: str | None = Field(
        default=None, description="Commit, tag or branch; pin it for results that can be repeated."
    )

    @property
    def name(self) -> str:
        """The source's name."""
        return self.id

    def tables(self, assets_dir: Path) -> list[FoundTable]:
        """One table per split; one with a name other than train, validation, test and the like has rows for all splits.

        Raises DataError if the data set is missing.
        """
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

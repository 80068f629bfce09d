"""Sources of rows, and the configuration that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kcm.components import FAMILIES, Component, Family
from kcm.errors import ConfigError
from kcm.tasks.columns import Table
from kcm.tasks.rows import Record


@dataclass(frozen=True)
class Source:
    """Records, the label list (empty where the source has none), and the label that means none of the list."""

    name: str
    records: Iterable[Record]
    labels: tuple[str, ...] = ()
    out_of_scope_label: str | None = None


class SourceConfig(Component):
    """A source of rows."""

    family: ClassVar[Family] = FAMILIES["source"]

    kind: str = Field("", description="Chooses this form of the section.")

    @abstractmethod
    def build(self, assets_dir: Path) -> Source:
        """Open the source. Raises DataError or AssetError where it is missing or has not the columns named."""

    def local_tables(self) -> list[Table]:
        """The tables of a source whose columns can be read by any name."""
        raise ConfigError("feature columns are read from local files only", where="feature_columns")

    def of_tables(self, tables: Sequence[Table], text_column: str) -> Source:
        """The source that these tables of its make, the texts in `text_column`."""
        raise NotImplementedError(f"{type(self).__name__} gives tables, and does not say what source they make")

"""Labelled rows from every reader of Ray Data, such as `read_iceberg`."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import Field, field_validator
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from kcm.assets.manifest import sha256_of
from kcm.errors import ConfigError, DataError, KcmError
from kcm.inputs.location import Location
from kcm.redact import redacted_values
from kcm.tasks.readers.columns import FoundTable
from kcm.tasks.readers.files import TableSourceConfig
from pipelines.batch.on_cluster import silence_ray_data
from pipelines.cluster.config import is_connected

_READ = "read_"
_ROWS_AT_ONCE = 16_384


class RaySource(TableSourceConfig):
    """The rows of any reader of Ray Data, in the order of their ids, since its blocks have none.

    Ray reads and sorts them. They become a Parquet file below the assets, named after its content.
    """

    needs_cluster: ClassVar[bool] = True

    read: str = Field(description="What is read, X of ray.data.read_X: parquet, iceberg, lance, …")
    args: dict[str, Any] = Field(
        default={},
        description="Arguments of the reader by name; {env: NAME} is the content of an environment variable.",
    )
    id_column: str = Field(description="Column with a unique, stable id, which orders the rows.")

    @field_validator("read")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (known := readers()):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"ray.data has no reader {name!r}, did you mean {nearest!r}? Known are {', '.join(known)}")
        return name

    @field_validator("args")
    @classmethod
    def _without_secrets(cls, args: dict[str, Any]) -> dict[str, Any]:
        if redacted_values(args) != args:
            raise ValueError("it holds a secret: write {env: NAME}, and put it into that variable")
        return args

    @property
    def name(self) -> str:
        """The source's name."""
        return f"ray.data.{_READ}{self.read}"

    def tables(self, assets_dir: Path) -> list[FoundTable]:
        """One table with all rows; the process that asks for it reads it, since other nodes may not see it.

        Raises ConfigError without a connection to Ray and for a variable or a package that is missing, DataError for
        whatever else the reader raises.
        """
        if not is_connected():
            raise ConfigError("Ray reads a source of the kind 'ray', and is not connected", where="source.kind")
        folder = assets_dir / "ray"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as draft:
            file = Path(draft) / "rows.parquet"
            with _reading(self.name):
                self._export(file)
            path = folder / f"{sha256_of(file)[:32]}.parquet"
            if not path.exists():
                file.rename(path)
        return [FoundTable(Location.of(path), self.name, self.read)]

    def _export(self, file: Path) -> None:
        """Write the rows, sorted by id, a bounded number at a time."""
        silence_ray_data()
        args = {name: _from_environment(value) for name, value in self.args.items()}
        reader: Callable[..., Dataset] = getattr(ray.data, f"{_READ}{self.read}")
        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        with DataContext.current(context):
            dataset = reader(**args)
        schema = dataset.schema()
        if schema and self.id_column in schema.names:  # otherwise the layout of the columns says what is missing
            dataset = dataset.sort(self.id_column)
        writer = None
        for batch in dataset.iter_batches(batch_size=_ROWS_AT_ONCE, batch_format="pyarrow"):
            rows = _plain(batch)
            writer = writer or pq.ParquetWriter(file, rows.schema)
            writer.write_table(rows.cast(writer.schema))
        if writer is None:
            raise DataError("there are no rows", where=self.name)
        writer.close()


def readers() -> list[str]:
    """What Ray Data reads, by the names of its functions without `read_`."""
    names = (name.removeprefix(_READ) for name in dir(ray.data) if name.startswith(_READ))
    return [name for name in names if callable(getattr(ray.data, f"{_READ}{name}")) and name != "api"]


def _plain(table: pa.Table) -> pa.Table:
    """The rows with tensors as the lists in which Arrow stores them."""
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            chunks = [chunk.storage for chunk in table[field.name].chunks]
            table = table.set_column(number, field.name, pa.chunked_array(chunks, type=field.type.storage_type))
    return table


def _from_environment(value: Any) -> Any:
    """The value with every {env: NAME} replaced. Raises ConfigError for a variable that is not set."""
    if isinstance(value, dict):
        if value.keys() == {"env"}:
            try:
                return os.environ[value["env"]]
            except KeyError:
                raise ConfigError(f"the variable {value['env']!r} is not set", where="source.args") from None
        return {name: _from_environment(each) for name, each in value.items()}
    return [_from_environment(each) for each in value] if isinstance(value, list) else value


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """A block in which a reader works; what it raises, which may be anything, becomes an error of one line."""
    try:
        yield
    except KcmError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"it needs a package that is not installed: {error}", where=where, hint="Install it on every node"
        ) from None
    except Exception as error:
        raise DataError(f"cannot read the rows: {_reason(error)}", where=where) from error


def _reason(error: BaseException) -> str:
    """The first line of what a task of Ray raised, or of the error itself."""
    while isinstance(error, RayError) and isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]

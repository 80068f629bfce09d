"""Files of an output, in a folder or in an object store: each is whole or absent."""

from __future__ import annotations

import errno
import glob
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from kcm.durable import replace_durably
from kcm.errors import ArtefactError
from kcm.inputs.location import Location, fault_of


@contextmanager
def drafted(target: Location) -> Iterator[Path]:
    """A path to write to within the block; at its normal end the file is renamed to `target`, or uploaded, else gone.

    Raises ArtefactError where it cannot be put there.
    """
    if target.is_local:
        with _beside(Path(target.path)) as draft:
            yield draft
        return
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        yield (draft := Path(folder, target.name))
        # A stream that an error ends is closed all the same, which puts half an object in place: upload what is whole.
        with writable(target):
            fs.copy_files(
                str(draft),
                target.path,
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=target.file_system,
            )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        yield draft
        with writable(Location.of(path)):
            replace_durably(draft, path)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 32}.draft"):  # by processes that were killed
            left.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # what kept the file from being written may keep its draft from being found
            draft.unlink(missing_ok=True)


def make_folder(folder: Location) -> None:
    """Make a folder, where folders are more than the beginnings of names. ArtefactError where that is not possible."""
    if folder.is_local:
        with writable(folder):
            Path(folder.path).mkdir(parents=True, exist_ok=True)


@contextmanager
def writable(target: Location) -> Iterator[None]:
    """A block that writes `target`; what the system raises becomes an ArtefactError of one line that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and target.is_local:
            raise ArtefactError("no such folder", where=str(target.folder), hint="Create it first") from error
        if error.errno == errno.ENOSPC:
            raise ArtefactError("the disk is full", where=str(target), hint="Free some space") from error
        what, hint = fault_of(error, target, "write")
        raise ArtefactError(what, where=str(target), hint=hint or "Choose another output") from error

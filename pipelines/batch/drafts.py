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

from kcm._messages import store_fault
from kcm.durable import replace_durably
from kcm.errors import ArtefactError
from kcm.inputs.location import Location


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
        what, hint = _fault_of(error, target)
        where = target.folder if isinstance(error, FileNotFoundError) and target.is_local else target
        raise ArtefactError(what, where=str(where), hint=hint) from error


def _fault_of(error: OSError, target: Location) -> tuple[str, str]:
    """Why a file cannot be written, and what helps."""
    if target.is_local:
        if isinstance(error, FileNotFoundError):
            return "no such folder", "Create it first"
        if error.errno == errno.ENOSPC:
            return "the disk is full", "Free some space"
        return f"cannot write: {error.strerror or error}", "Choose another output"
    match store_fault(error):
        case "no bucket":
            return f"the bucket {target.path.partition('/')[0]!r} does not exist", "Create it first"
        case "expired":
            return "the store's credentials have expired", "Renew them and start again: finished files are kept"
        case "refused" | "denied":
            return "there is no right to write it", "Check the credentials in the environment, and the bucket's policy"
        case "no answer":
            return "the store does not answer", "Check the network and the endpoint"
        case _:
            return f"cannot write: {' '.join(str(error).split())[:200]}", "Choose another output"

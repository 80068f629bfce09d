"""Files of a bucket, and how a place is told: a folder that all nodes see, or the URI of a bucket.

Credentials and endpoints of buckets come from the usual variables of the environment, in every process of its own:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL; GOOGLE_SERVICE_ACCOUNT,
GOOGLE_APPLICATION_CREDENTIALS. None is stored, and none is part of a pickled value.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions, store
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from kcm._messages import status_of, store_fault
from kcm.errors import ConfigError
from pipelines.store.files import Files, LocalFiles, Stat, StorageError
from pipelines.store.ranges import Ranges

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs")
MOST_COPIED = 5 * 2**30  # bytes of an object that S3 copies by one request
PATIENCE_S = 120.0  # how long a bucket that does not answer is waited for
_WRITER, _SHA256 = "kcm-writer", "kcm-sha256"  # attributes of objects
ResultT = TypeVar("ResultT")


def files_at(place: str | Path) -> Files:
    """The files of a folder, or of an s3:// or gs:// URI."""
    scheme = urlsplit(str(place)).scheme if "://" in str(place) else ""
    if scheme in SCHEMES:
        return ObjectFiles(str(place).rstrip("/"))
    return LocalFiles(Path(place).absolute())


def normalised(place: str | Path) -> str:
    """A storage path as it is compared and written down: an absolute path, or a URI without a slash at its end.

    ValueError for a scheme that no storage has.
    """
    text = str(place)
    if "://" not in text:
        return str(Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return str(Path(unquote(parts.path)))
    if parts.scheme not in SCHEMES or not parts.netloc or "@" in parts.netloc:
        known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
        raise ValueError(f"name a folder that all nodes see, or {known}; credentials come from the environment")
    return text.rstrip("/")


@dataclass(frozen=True)
class ObjectFiles(Files):
    """Files of a bucket below a prefix. Raises StorageError; what may pass by itself is tried again for a while."""

    where: str
    poll_s: ClassVar[float] = 1.0

    @property
    def uri(self) -> str:
        """The URI."""
        return self.where

    def below(self, name: str) -> Files:
        """The files below a longer prefix."""
        return ObjectFiles(f"{self.where}/{name}") if name else self

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there.

        A put whose answer was lost is sent again, and then finds the object there: whose it is stands in an attribute.
        """
        writer = uuid.uuid4().hex
        try:
            self._ask(
                lambda: obstore.put(self._store, name, content, mode="create", attributes={_WRITER: writer}), name
            )
        except exceptions.AlreadyExistsError:
            with suppress(FileNotFoundError):
                return self._attribute(name, _WRITER) == writer
            return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._ask(lambda: obstore.put(self._store, name, content), name)

    def put(self, name: str, source: Path, sha256: str) -> None:
        """Upload a file, a large one in parts."""
        self._ask(lambda: obstore.put(self._store, name, source, attributes={_SHA256: sha256}), name)

    def read(self, name: str) -> bytes:
        """The content."""
        return self._ask(lambda: bytes(obstore.get(self._store, name).bytes()), name)

    def get(self, name: str, target: Path) -> None:
        """Download an object. StorageError where it is not what was uploaded by `put`."""

        def download() -> None:
            found, read = obstore.get(self._store, name), hashlib.sha256()
            with target.open("wb") as file:
                for chunk in found.stream(min_chunk_size=8 * 2**20):
                    file.write(chunk)
                    read.update(chunk)
            if found.attributes.get(_SHA256, read.hexdigest()) != read.hexdigest():
                raise self._error("the file is not what was written", name, "Run the stage again: `kcm verify`")

        self._ask(download, name)

    def open(self, name: str) -> BinaryIO:
        """The content, a request for each part of it that is read."""
        size = self._size(name)

        def read(start: int, length: int) -> memoryview:
            return self._ask(lambda: memoryview(obstore.get_range(self._store, name, start=start, length=length)), name)

        return cast(BinaryIO, Ranges(f"{self.where}/{name}", size, read))

    def copy(self, name: str, target: str) -> None:
        """Copy an object within the bucket, with what was noted of it; a very large one by way of this node."""
        if self._size(name) <= MOST_COPIED:
            self._ask(lambda: obstore.copy(self._store, name, target), name)
            return
        with self.local(name) as path:
            self.put(target, path, self.noted_sha256(name))

    def list(self, name: str = "") -> Iterator[Stat]:
        """The objects below a prefix; the mark is the entity tag."""

        def listed() -> list[Any]:
            return [each for page in obstore.list(self._store, name or None, chunk_size=1000) for each in page]

        for each in self._ask(listed, name):
            mark = (each["e_tag"] or "").strip('"')
            yield Stat(each["path"], each["size"], mark, each["last_modified"].timestamp())

    def sha256(self, name: str) -> str:
        """The SHA-256 of the content, which is downloaded and not kept."""

        def hashed() -> str:
            found = hashlib.sha256()
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=8 * 2**20):
                found.update(chunk)
            return found.hexdigest()

        return self._ask(hashed, name)

    def noted_sha256(self, name: str) -> str:
        """The SHA-256 that was sent with the object."""
        return self._attribute(name, _SHA256) or self.sha256(name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects."""
        if found := list(names):
            self._ask(lambda: obstore.delete(self._store, found), found[0])

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A temporary copy."""
        with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
            self.get(name, target := Path(folder) / Path(name).name)
            yield target

    @property
    def _store(self) -> Any:
        return _opened(self.where, _endpoint())

    def _size(self, name: str) -> int:
        return self._ask(lambda: int(obstore.head(self._store, name)["size"]), name)

    def _attribute(self, name: str, key: str) -> str | None:
        found = self._ask(lambda: dict(obstore.get(self._store, name, options={"head": True}).attributes), name)
        return found.get(key)

    def _ask(self, request: Callable[[], ResultT], name: str) -> ResultT:
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_delay(PATIENCE_S),
                wait=wait_random_exponential(0.1, max=5),
                reraise=True,
            ):
                with attempt:
                    return request()
        except exceptions.AlreadyExistsError:
            raise
        except FileNotFoundError as error:
            if store_fault(error) == "no bucket":
                raise self._error("the bucket does not exist", name, "Create it, or choose another storage_path") from (
                    error
                )
            raise FileNotFoundError(f"{self.where}/{name}") from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            reason, hint = _reason(error)
            raise self._error(reason, name, hint) from error
        raise AssertionError("unreachable")

    def _error(self, reason: str, name: str, hint: str) -> StorageError:
        return StorageError(reason, where=f"{self.where}/{name}".rstrip("/"), hint=hint)


def _may_pass(error: BaseException) -> bool:
    """Whether a fault may pass by itself: no answer, a broken one, a server's own error, a conflict of two puts."""
    broken = isinstance(error, exceptions.GenericError | exceptions.JoinError)
    return broken and store_fault(error) not in ("expired", "refused")


def _reason(error: BaseException) -> tuple[str, str]:
    """What went wrong in a few words, and how to fix it. The answers of servers name keys, and are not repeated."""
    if (fault := store_fault(error)) in ("expired", "refused"):
        what = "have expired" if fault == "expired" else "are refused"
        return f"the credentials {what}", "Renew them and start again: finished work is kept"
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return "no right to read or write here", "Ask for it, or check the credentials in the environment"
    reason = status_of(error) or type(error).__name__
    return f"the storage does not answer as it should: {reason}", "Start again when it does: finished work is kept"


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@lru_cache(maxsize=64)
def _opened(uri: str, endpoint: str) -> Any:
    """The client of a prefix, with its connections; one for each process."""
    timeouts: ClientConfig = {"connect_timeout": "5s", "timeout": "300s"}
    more: dict[str, Any] = {}
    if uri.startswith("s3://") and endpoint:
        more["endpoint"] = endpoint
        if endpoint.startswith("http://"):
            timeouts["allow_http"] = True
    retries: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}  # `_ask` tries for longer
    try:
        return store.from_url(uri, client_options=timeouts, retry_config=retries, **more)
    except (exceptions.BaseError, ValueError) as error:
        raise ConfigError(f"not a storage: {error}", where=uri) from error

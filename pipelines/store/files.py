"""The one client of a storage: files by name below a folder that all nodes see, or below a prefix of a bucket.

obstore speaks to both. Three rules make a storage safe for several writers: a file is whole or absent; `create` writes
a file only if it is absent (enough for leases, manifests, the ledger and the champion pointer); and the entity tags in
a listing show whether a file has changed.

Credentials and endpoints of buckets come from the usual environment variables of each process: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL; GOOGLE_SERVICE_ACCOUNT,
GOOGLE_APPLICATION_CREDENTIALS. None is stored, and none is part of a pickled value.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions, store
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from kcm._messages import status_of, store_fault
from kcm.assets.manifest import sha256_of
from kcm.errors import ArtefactError, ConfigError
from kcm.local_files import create_durably

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs")
MOST_COPIED = 5 * 2**30  # largest object that S3 copies in one request, in bytes
PATIENCE_S = 120.0  # how long to retry a bucket that does not answer
_CHUNK = 8 * 2**20
_WRITER, _SHA256 = "kcm-writer", "kcm-sha256"  # attributes of objects
_DRAFT = re.compile(r"(.*/)?\.[0-9a-f]{32}")  # prefix of a file that `create_durably` is writing
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
ResultT = TypeVar("ResultT")


class StorageError(ArtefactError):
    """The storage is unreachable or unusable."""


@dataclass(frozen=True)
class Stat:
    """A file in a listing; `mark` is its entity tag, which changes whenever the content may have changed."""

    name: str
    size: int
    mark: str
    modified: float  # seconds since 1970 on the clock of the storage


@dataclass(frozen=True)
class Files:
    """Files by name (parts joined by slashes) below a URI; any process may hold a copy.

    A missing file raises FileNotFoundError. Other faults raise OSError in a folder and StorageError in a bucket, after
    retries for `PATIENCE_S` if the fault may be temporary.
    """

    uri: str

    @classmethod
    def at(cls, place: str | Path) -> Files:
        """The files of a storage path. ValueError for an unknown scheme."""
        return cls(normalised(place))

    @property
    def is_remote(self) -> bool:
        """Whether the files are in a bucket."""
        return "://" in self.uri

    @property
    def poll_s(self) -> float:
        """Seconds between two reads of a file that another process writes."""
        return 1.0 if self.is_remote else 0.0

    def below(self, name: str) -> Files:
        """The files below a name."""
        return Files(f"{self.uri}/{name}") if name else self

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that does not exist; False, and nothing changes, if it exists. One of several writers succeeds.

        The content is durable before this returns: obstore does not flush files in folders to disk, so `create_durably`
        does. A put to a bucket whose answer was lost is repeated and then finds the object; an attribute shows which
        writer created it.
        """
        if not self.is_remote:
            return create_durably(Path(self.uri) / name, content)
        writer = uuid.uuid4().hex
        try:
            options: dict[str, Any] = {"mode": "create", "attributes": {_WRITER: writer}}
            self._ask(name, lambda key: obstore.put(self._store, key, content, **options))
        except exceptions.AlreadyExistsError:
            with suppress(FileNotFoundError):
                return self._attribute(name, _WRITER) == writer
            return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        self._ask(name, lambda key: obstore.put(self._store, key, content))

    def put(self, name: str, source: Path) -> None:
        """Write or replace a file with the content of a local one; a large one is sent in parts."""
        noted = {_SHA256: sha256_of(source)} if self.is_remote else None
        self._ask(name, lambda key: obstore.put(self._store, key, source, attributes=noted))

    def read(self, name: str) -> bytes:
        """The content."""
        return self._ask(name, lambda key: bytes(obstore.get(self._store, key).bytes()))

    def size(self, name: str) -> int:
        """The bytes of a file."""
        return self._ask(name, lambda key: int(obstore.head(self._store, key)["size"]))

    def get(self, name: str, target: Path) -> str:
        """Write the content to a local file; returns its SHA-256. StorageError if `put` recorded another hash."""

        def download(key: str) -> str:
            response, sha256 = obstore.get(self._store, key), hashlib.sha256()
            with target.open("wb") as file:
                for chunk in response.stream(min_chunk_size=_CHUNK):
                    file.write(chunk)
                    sha256.update(chunk)
            if self.is_remote and response.attributes.get(_SHA256, sha256.hexdigest()) != sha256.hexdigest():
                raise self._error(
                    "the file is not what was written", name, "Remove the folder of its artefact, and start again"
                )
            return sha256.hexdigest()

        return self._ask(name, download)

    def open(self, name: str) -> BinaryIO:
        """The content; from an object, only the parts that are read are fetched, one request each."""
        if not self.is_remote:
            return (Path(self.uri) / name).open("rb")
        size = self.size(name)

        def fetch(start: int, length: int) -> memoryview:
            return self._ask(
                name, lambda key: memoryview(obstore.get_range(self._store, key, start=start, length=length))
            )

        return cast(BinaryIO, RangeFile(f"{self.uri}/{name}", size, fetch))

    def copy(self, name: str, target: str) -> None:
        """Add another name for a file that nobody writes any more, with its attributes.

        The storage does this itself (a link in a folder). Only an object that is too large passes through this node.
        """
        if not self.is_remote or self.size(name) <= MOST_COPIED:
            self._ask(name, lambda key: obstore.copy(self._store, key, self._key(target)))
            return
        with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
            self.get(name, path := Path(folder) / "copy")
            self.put(target, path)

    def list(self, name: str = "") -> Iterator[Stat]:
        """The files below a name, at any depth, in no order."""

        def listed(key: str) -> list[Any]:
            return [item for page in obstore.list(self._store, key or None, chunk_size=1000) for item in page]

        start = len(self._key("x")) - 1
        for item in self._ask(name, listed):
            if not _DRAFT.fullmatch(path := item["path"][start:]):
                mark = (item["e_tag"] or "").strip('"')
                yield Stat(path, item["size"], mark, item["last_modified"].timestamp())

    def sha256(self, name: str) -> str:
        """The SHA-256 of the content, computed from the content."""

        def hashed(key: str) -> str:
            sha256 = hashlib.sha256()
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK):
                sha256.update(chunk)
            return sha256.hexdigest()

        return self._ask(name, hashed)

    def noted_sha256(self, name: str) -> str:
        """The SHA-256 sent with an object; for a file in a folder, the hash of the content."""
        return (self._attribute(name, _SHA256) if self.is_remote else None) or self.sha256(name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; missing files are skipped."""
        if self.is_remote:
            if keys := list(names):
                self._ask("", lambda _: obstore.delete(self._store, keys))
            return
        for name in names:
            with suppress(FileNotFoundError):
                self._ask(name, lambda key: obstore.delete(self._store, [key]))

    @property
    def _store(self) -> Any:
        return _client(self.uri, _endpoint()) if self.is_remote else _folders()

    def _key(self, name: str) -> str:
        """The name as the client knows it: in a folder, from the root of the file system."""
        return name if self.is_remote else f"{self.uri}/{name}".strip("/")

    def _attribute(self, name: str, attribute: str) -> str | None:
        attributes = self._ask(name, lambda key: dict(obstore.get(self._store, key, options={"head": True}).attributes))
        return attributes.get(attribute)

    def _ask(self, name: str, request: Callable[[str], ResultT]) -> ResultT:
        """The answer to a request about a file."""
        key = self._key(name)
        if not self.is_remote:
            try:
                return request(key)
            except exceptions.BaseError as error:
                code = _OS_ERROR.search(str(error))
                raise OSError(int(code[1]), os.strerror(int(code[1])), f"/{key}") if code else error from error
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_delay(PATIENCE_S),
                wait=wait_random_exponential(0.1, max=5),
                reraise=True,
            ):
                with attempt:
                    return request(key)
        except exceptions.AlreadyExistsError:
            raise
        except FileNotFoundError as error:
            if store_fault(error) == "no bucket":
                hint = "Create it, or choose another storage_path"
                raise self._error("the bucket does not exist", name, hint) from error
            raise FileNotFoundError(f"{self.uri}/{name}") from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise self._error(*_reason(error, name)) from error
        raise AssertionError("unreachable")

    def _error(self, reason: str, name: str, hint: str) -> StorageError:
        return StorageError(reason, where=f"{self.uri}/{name}".rstrip("/"), hint=hint)


class RangeFile(io.RawIOBase):
    """A remote file of `size` bytes; only the ranges that are read are fetched.

    obstore's own reader lacks `closed`, which pyarrow needs.
    """

    def __init__(self, name: str, size: int, fetch: Callable[[int, int], memoryview]) -> None:
        self.name, self._size, self._fetch = name, size, fetch
        self._position = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read at any place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; nothing is fetched."""
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is content."""
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        buffer[:length] = self._fetch(self._position, length)
        self._position += length
        return length


def normalised(place: str | Path) -> str:
    """A storage path as it is compared and stored: an absolute path, or a URI without a trailing slash.

    ValueError for an unknown scheme.
    """
    text = str(place)
    if "://" not in text:
        return str(Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return str(Path(unquote(parts.path)))
    if parts.scheme not in SCHEMES or not parts.netloc or "@" in parts.netloc:
        known_schemes = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
        raise ValueError(f"name a folder that all nodes see, or {known_schemes}; credentials come from the environment")
    return text.rstrip("/")


def _may_pass(error: BaseException) -> bool:
    """Whether a fault may be temporary: no answer, a broken answer, a server error, a conflict of two puts."""
    is_transport_error = isinstance(error, exceptions.GenericError | exceptions.JoinError)
    return is_transport_error and store_fault(error) not in ("expired", "refused")


def _reason(error: BaseException, name: str) -> tuple[str, str, str]:
    """The fault in a few words, its location, and the fix; servers' answers contain keys and are not repeated."""
    if (fault := store_fault(error)) in ("expired", "refused"):
        complaint = "have expired" if fault == "expired" else "are refused"
        return f"the credentials {complaint}", name, "Renew them and start again: finished work is kept"
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return "no right to read or write here", name, "Ask for it, or check the credentials in the environment"
    reason = f"the storage does not answer as it should: {status_of(error) or type(error).__name__}"
    return reason, name, "Start again when it does: finished work is kept"


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@lru_cache(maxsize=1)
def _folders() -> store.LocalStore:
    """The client of all folders of this node."""
    return store.LocalStore()


@lru_cache(maxsize=64)
def _client(uri: str, endpoint: str) -> Any:
    """The client of a prefix with its connections; one per process."""
    timeouts: ClientConfig = {"connect_timeout": "5s", "timeout": "300s"}
    options: dict[str, Any] = {}
    if uri.startswith("s3://") and endpoint:
        options["endpoint"] = endpoint
        if endpoint.startswith("http://"):
            timeouts["allow_http"] = True
    retries: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}  # `_ask` tries for longer
    try:
        return store.from_url(uri, client_options=timeouts, retry_config=retries, **options)
    except (exceptions.BaseError, ValueError) as error:
        raise ConfigError(f"not a storage: {error}", where=uri) from error

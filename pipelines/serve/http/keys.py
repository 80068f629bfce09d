"""The keys that callers show: only their hashes are known here, and they can change while requests go on."""

from __future__ import annotations

import hmac
import logging
import re
from hashlib import sha256
from pathlib import Path

from kcm.errors import ConfigError

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9a-f]{64})")
_OF_NOTHING = sha256(b"").hexdigest()

logger = logging.getLogger("ray.serve")

_Stamp = tuple[int, int, int]  # modification time, size and inode


class Keys:
    """The keys of a file with a line `NAME SHA256` for each of them; `#` starts a comment.

    The file is read again when it changes: a new key is valid, and one that was taken out invalid, at the next request.
    While the file is missing or has a bad line, the keys that were read last stay valid. Several keys may share a
    name. Raises ConfigError if the first reading fails.

    A key's hash is made by `printf %s "$KEY" | sha256sum`. Keys are to be random (`openssl rand -hex 32`): a plain
    hash protects nothing that can be guessed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last_error = ""  # the fault that was logged last
        try:
            self._stamp: _Stamp | None = self._current_stamp()
            self._names = _read(file)
        except OSError as error:
            raise ConfigError(
                f"the keys cannot be read: {error.strerror}", where=str(file), hint="Write a line NAME SHA256 per key"
            ) from None

    def caller(self, key: str) -> str | None:
        """The name that the key stands for; None for a key that is not valid, as an empty one never is."""
        self._refresh()
        if not key:
            return None
        shown = sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        # Every hash is compared, each in constant time: the time taken reveals nothing.
        names = [name for digest, name in self._names.items() if hmac.compare_digest(digest, shown)]
        return names[0] if names else None

    def _refresh(self) -> None:
        try:
            stamp = self._current_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._names = _read(self._file)
                self._last_error = ""
        except (OSError, ConfigError) as error:
            if isinstance(error, OSError):
                self._stamp = None  # it is read as soon as it can be, changed or not
            if str(error) != self._last_error:  # logged once: callers ask with every request
                self._last_error = str(error)
                logger.error("the keys that were read last stay valid: %s", error)

    def _current_stamp(self) -> _Stamp:
        status = self._file.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> dict[str, str]:
    """Names by hash."""
    names: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:  # the line is not shown: it may hold a key in place of its hash
            hint = 'Write NAME SHA256, the hash by: printf %s "$KEY" | sha256sum'
            raise ConfigError("not a name and a hash", where=f"{file}, line {number}", hint=hint)
        if match["digest"] == _OF_NOTHING:
            hint = 'Make the hash of a key: printf %s "$KEY" | sha256sum'
            raise ConfigError("the hash of an empty key", where=f"{file}, line {number}", hint=hint)
        names[match["digest"]] = match["name"]
    if not names:
        raise ConfigError("there is no key", where=str(file), hint="Write a line NAME SHA256 per key")
    return names

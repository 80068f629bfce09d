"""A file somewhere else, of which only the parts that are read are fetched, each by a request of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


class Ranges(io.RawIOBase):
    """A file of `size` bytes, which is called `name`; `fetch(start, length)` gives some of them."""

    def __init__(self, name: str, size: int, fetch: Callable[[int, int], memoryview]) -> None:
        self.name, self._size, self._fetch = name, size, fetch
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read at any place."""
        return True

    def tell(self) -> int:
        """The place of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, which nothing is fetched for."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = begin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is content."""
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = self._fetch(self._at, length)
        self._at += length
        return length

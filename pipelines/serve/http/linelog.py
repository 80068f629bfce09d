"""A log of JSON lines that are written many at once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any


class LineLog:
    """Puts fields into a file, a line each, at most `delay_s` later; a full file gives way to the next.

    A logger writes each line by itself. That hands the interpreter to the thread that judges and waits to get it back,
    which costs a request of a small model more than all the rest of the interface.
    """

    def __init__(
        self, path: Path, *, delay_s: float = 0.25, max_bytes: int = 128 * 2**20, num_backups: int = 4
    ) -> None:
        self._file = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=num_backups, encoding="utf-8")
        self._delay_s = delay_s
        self._lines: list[str] = []

    def add(self, fields: Mapping[str, Any]) -> None:
        """Log `fields` with the time, on a running event loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(self._delay_s, self.flush)
        self._lines.append(json.dumps({"time": datetime.now(UTC).isoformat(), **fields}))

    def flush(self) -> None:
        """Write what waits. An error is told on stderr and costs the lines, never a request."""
        lines, self._lines = self._lines, []
        if lines:
            self._file.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))

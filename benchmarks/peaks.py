"""How much memory the processes of a command take, and how many CPU seconds."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

_MIB = 2**20


class Peaks:
    """Samples a process and those below it: CPU seconds, and the largest private memory by Ray's title of a process."""

    def __init__(self, pid: int, every_s: float = 0.2) -> None:
        self._root, self._every_s = psutil.Process(pid), every_s
        self._largest: dict[str, int] = {}
        self._cpu_s: dict[int, float] = {}  # of each process, when it was last seen
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._done.set()
        self._thread.join()

    def mib(self) -> dict[str, int]:
        """MiB by kind of process."""
        return {kind: round(size / _MIB) for kind, size in sorted(self._largest.items())}

    def cpu_s(self) -> float:
        """CPU seconds of all processes together."""
        return sum(self._cpu_s.values())

    def _sample(self) -> None:
        while not self._done.wait(self._every_s):
            with suppress(psutil.Error):  # a process has ended
                for process in [self._root, *self._root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        self._note(process)

    def _note(self, process: psutil.Process) -> None:
        kind, times = "driver", process.cpu_times()
        self._cpu_s[process.pid] = times.user + times.system
        if process.pid != self._root.pid:
            title = (process.cmdline() or [""])[0]
            if not title.startswith("ray::") or title.startswith("ray::IDLE"):
                return
            kind = title.removeprefix("ray::").split(".")[0].split("(")[0].strip()
        memory = process.memory_info()
        self._largest[kind] = max(self._largest.get(kind, 0), memory.rss - memory.shared)

"""One process of two threads against two processes of one thread: rows a second that an encoder makes on two cores.

The processes of a shape share the same rows out among them and start at one moment; the last one to end counts. Shapes
take turns. This is a matter of the clock: on a machine that others use the figures say nothing.

This file is also what each of the processes runs: it reads texts as a line of JSON, encodes them for each further line,
and answers with its CPU seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SHAPES = {"1 x 2": (1, 2), "2 x 1": (2, 1)}  # processes, threads of each
ROUNDS = 7


class Processes:
    """The processes of one shape, loaded and warm."""

    def __init__(self, texts: Sequence[str], assets: Path, config: dict[str, Any], shape: tuple[int, int]) -> None:
        count, threads = shape
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__, str(assets), json.dumps(config)]
        self._running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(count)
        ]
        self._num_rows = len(texts)
        for number, process in enumerate(self._running):
            _tell(process, json.dumps(texts[number::count]))
        self._answers()

    def encode(self) -> tuple[float, float]:
        """Encode all texts once: rows a second, and CPU milliseconds for a row."""
        started = time.perf_counter()
        for process in self._running:
            _tell(process, "again")
        cpu_s = sum(self._answers())
        return self._num_rows / (time.perf_counter() - started), 1000 * cpu_s / self._num_rows

    def close(self) -> None:
        """End the processes."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=60)

    def _answers(self) -> list[float]:
        lines = [process.stdout.readline() for process in self._running if process.stdout is not None]
        return [float(line) for line in lines]


def threads(texts: Sequence[str], assets: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Each shape: rows a second, CPU milliseconds for a row, and the rate against `1 x 2` in the same round."""
    with ExitStack() as stack:
        shapes = {name: Processes(texts, assets, config, shape) for name, shape in SHAPES.items()}
        for each in shapes.values():
            stack.callback(each.close)
        rounds = [{name: each.encode() for name, each in shapes.items()} for _ in range(ROUNDS)]
    first = next(iter(SHAPES))
    return {
        name: {
            "rows_per_s": statistics.median(each[name][0] for each in rounds),
            "cpu_ms": statistics.median(each[name][1] for each in rounds),
            "against_first": statistics.median(each[name][0] / each[first][0] for each in rounds),
            "least": min(each[name][0] / each[first][0] for each in rounds),
            "most": max(each[name][0] / each[first][0] for each in rounds),
        }
        for name in SHAPES
    }


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _work(assets: Path, config: dict[str, Any]) -> None:
    from kcm.encoders import TextEncoderConfig
    from kcm.inputs.content import contents

    encoder = TextEncoderConfig(**config).build(assets)
    inputs = contents(json.loads(sys.stdin.readline()))
    encoder.encode(inputs)
    print(0.0, flush=True)
    while sys.stdin.readline():
        started = time.process_time()
        encoder.encode(inputs)
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    _work(Path(sys.argv[1]), json.loads(sys.argv[2]))

"""Which runtime is faster here: measured once for an encoder, a kind of processor and versions, and remembered.

    ASSETS/.onnx/KEY.seconds.json    seconds that the probes took in each runtime

Assets that cannot be written are measured every time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kcm.encoders.runtime.network import Runtime, num_threads

_AS_FAST = 1.2  # times the seconds of torch


def fastest(assets_dir: Path, identity: str, measure: Callable[[], Mapping[Runtime, float]]) -> Runtime:
    """The faster runtime of the encoder `identity`; `measure` is called where no seconds are known.

    Where they are about as fast it is ONNX Runtime, which starts without torch's networks and transformers. A
    measurement of one runtime alone is not remembered: the other may work another time.
    """
    file = assets_dir / ".onnx" / f"{_key(identity)}.seconds.json"
    seconds = _read(file)
    if seconds is None:
        seconds = measure()
        if len(seconds) > 1:
            _write(file, seconds)
    return "onnx" if seconds.get("onnx", math.inf) <= _AS_FAST * seconds["torch"] else "torch"


def _key(identity: str) -> str:
    facts = (identity, _processor(), num_threads(), _version("torch"), _version("onnxruntime"))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Model and instructions: a virtual machine may name a processor and show a part of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(file: Path) -> Mapping[Runtime, float] | None:
    """What was measured; None where nothing was, or the file is not ours any more."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"torch": float(found["torch"]), "onnx": float(found["onnx"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, seconds: Mapping[Runtime, float]) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(seconds), encoding="utf-8")
        os.replace(draft, file)

"""What the figures of a benchmark were measured on."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import torch


def machine() -> dict[str, object]:
    """Processor, cores in use, versions and GPU; part of every written result."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "cpu": about.get("model name", platform.processor()),
        "cores": torch.get_num_threads(),
        "amx": "amx_tile" in about.get("flags", ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

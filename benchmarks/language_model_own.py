"""SmolLM2-135M behind a server of one's own: llama.cpp's, or the `transformers serve` of transformers.

Both have the same weights. llama.cpp reads the GGUF file as it is; for transformers it is unpacked to safetensors once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

GGUF = Path("SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf")
MODELS = {"llama.cpp": "SmolLM2-135M", "transformers": "SmolLM2-135M-safetensors"}  # by server, as it is asked for
_ALONE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # no hub is asked; one thread, as llama.cpp has


class OwnServer:
    """A server in a process of its own, which may be killed and started again at the same address."""

    def __init__(self, server: str, assets: Path, storage: Path, port: int) -> None:
        self._root, self._storage = f"http://127.0.0.1:{port}", storage
        gguf = (assets / GGUF).absolute()
        if server == "transformers":
            unpack(gguf, storage / MODELS[server])
            program = [str(Path(sys.executable).with_name("transformers")), "serve", MODELS[server]]
        else:
            program = [sys.executable, str(Path(__file__).absolute().with_name("language_model_server.py")), str(gguf)]
        self._command = [*program, "--port", str(port)]
        self.base_url = f"{self._root}/v1"
        self.start()

    def start(self) -> None:
        """Start it, and return once it answers."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, cwd=self._storage, env=os.environ | _ALONE, **quiet)
        while not self._is_ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended at once: {' '.join(self._command)}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it without a warning."""
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._root}/health").status_code == 200
        except httpx.HTTPError:
            return False


def unpack(gguf: Path, folder: Path) -> None:
    """Weights, tokenizer and chat template of a GGUF file as a folder of transformers, unless it is there.

    `transformers serve` takes a GGUF file, too, but 5.24 ends at one of Llama's kind: its configuration names no class.
    """
    if folder.exists():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # takes seconds, for one of two servers

    plain = GgufConfig(dequantize=True)  # packed weights cannot be saved
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, quantization_config=plain)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)

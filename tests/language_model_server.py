"""llama.cpp's own server around a GGUF file: a real upstream that speaks OpenAI's protocol, with log-probabilities.

    python tests/language_model_server.py assets/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf

It prints its address when it is ready, and serves until it is stopped. `pip install kcm-cascade[test]` brings it.
"""

from __future__ import annotations

import argparse
import signal

from xllamacpp import CommonParams, Server

NUM_SLOTS, TOKENS_PER_SLOT = 2, 1024  # requests answered concurrently; others wait


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    params = CommonParams()
    params.model.path = arguments.model
    params.port, params.n_parallel = arguments.port, NUM_SLOTS
    params.n_ctx = TOKENS_PER_SLOT * NUM_SLOTS
    params.cpuparams.n_threads = 1
    server = Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()

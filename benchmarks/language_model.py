"""A real language model behind the cascade, over OpenAI's protocol: kept items and savings.

    kcm assets reviews SmolLM2-135M-Instruct-GGUF
    python benchmarks/language_model.py [--write]                                  SmolLM2-135M, llama.cpp
    python benchmarks/language_model.py --base-url http://HOST/v1 --model NAME     any other that runs already

Clear tweets of the `reviews` data; the stages of `kcm run` up to its figures, so that every row is asked once and the
answers lie in --storage. Tokens and seconds are those of the server's answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.pretty import pprint

from benchmarks.machine import free_port, machine
from benchmarks.script import BY_STEPS, REVIEWS, keep, options, read
from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.run import run

SERVER = Path(__file__).with_name("language_model_server.py")
NUM_ROWS = 240
CLEAR = 2.0  # tweets whose mean rating is beyond it are clearly good or bad
EVEN = 0.5  # the share of one of two labels, which an answer gets at least
EPSILON = 0.1  # what so few certify rows can promise
GGUF = Path("SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf")


def clear_tweets(assets: Path) -> list[tuple[float, str]]:
    """Rating and text of the tweets that people found clearly good or clearly bad."""
    lines = (assets / "reviews/tweets_GroundTruth.txt").read_text(encoding="utf-8").splitlines()
    rows = [(float(rating), text.strip()) for _, rating, text in (line.split("\t", 2) for line in lines)]
    return [(rating, text) for rating, text in rows if abs(rating) > CLEAR]


def write_rows(clear: Sequence[tuple[float, str]], file: Path) -> None:
    """Write tweets as a file of one's own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for rating, text in clear:
            label = "positive" if rating > 0 else "negative"
            out.write(json.dumps({"text": text, "label": label, "task": "tweets"}) + "\n")


def configured(base_url: str, model: str, rows: Path, arguments: argparse.Namespace) -> RunConfig:
    """The run of `reviews` on these rows, with this server for its large model."""
    overrides = {
        "collaborators": "[kcm]",
        "tasks.source": f"{{kind: files, path: {rows.absolute()}, task_column: task}}",
        "tasks.max_rows_per_task": "null",
        "large": f"{{adapter: openai, base_url: {base_url}, model: {model}, api_key_env: null, num_concurrent: 4}}",
        "tune.num_trials": 2,
        "certificate.epsilon": EPSILON,
        "storage_path": arguments.storage.absolute(),
        "assets_path": arguments.assets.absolute(),
    }
    return load_config(RunConfig, REVIEWS, [*BY_STEPS, *(f"{key}={value}" for key, value in overrides.items())])


def measured(config: RunConfig, model: str) -> dict[str, Any]:
    """The share of test rows that the cascade keeps, and the cost of the server's answers."""
    result = run(config, until="evaluate")
    outcomes = Path(result["artefacts"]["outcomes"])
    table = pq.read_table(outcomes / "task-0000.parquet")
    usage = json.loads((outcomes / "large.json").read_text(encoding="utf-8"))
    seconds = float(table["large_cost"].to_numpy().mean())
    tokens = usage["tokens"] / usage["rows"]
    surest_N = np.stack(table["large_probabilities"].to_numpy()).max(1)
    overall = result["kcm"]["overall"]
    savings = overall["calls_saved"]
    return {
        "model": model,
        "rows_asked": usage["rows"],
        "off_label": float((table["large_label"].to_numpy() < 0).mean()),
        "with_probabilities": float(np.isfinite(surest_N).mean()),
        "surer_than_even": float((surest_N > EVEN + 1e-6).mean()),
        "tokens_a_row": tokens,
        "seconds_a_row": seconds,
        **{key: overall[key] for key in ("num_rows", "small_accuracy", "large_accuracy", "cascade_accuracy")},
        "calls_saved": savings,
        "saved_per_1000_rows": {"tokens": 1000 * savings * tokens, "seconds": 1000 * savings * seconds},
        "certificate": {key: result["certificate"][key] for key in ("decision", "epsilon", "delta", "bound")},
        "machine": machine(),
    }


@contextmanager
def llama_cpp(assets: Path) -> Iterator[str]:
    """The URL of llama.cpp's server with SmolLM2-135M, which ends with the block."""
    port = free_port()
    command = [sys.executable, str(SERVER), str(assets / GGUF), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():  # it prints its address once it answers
            raise RuntimeError(f"the server ended immediately: {' '.join(command)}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Start a server unless one is named, run, print, and write down with `--write`."""
    parser = options(__doc__, assets=True, storage="storage/language_model", results="language_model")
    parser.add_argument("--base-url", metavar="URL", help="a server that runs, up to before /chat/completions")
    parser.add_argument("--model", default="SmolLM2-135M", help="of that server, as it knows it")
    arguments = parser.parse_args()
    rows = arguments.storage / f"tweets-{NUM_ROWS}.jsonl"
    write_rows(clear_tweets(arguments.assets)[:NUM_ROWS], rows)
    served = nullcontext(arguments.base_url) if arguments.base_url else llama_cpp(arguments.assets)
    with served as base_url:
        figures = measured(configured(base_url, arguments.model, rows, arguments), arguments.model)
    pprint(figures)
    if arguments.write:
        earlier = read("language_model").get(arguments.model, {})
        keep("language_model", {arguments.model: earlier | figures})


if __name__ == "__main__":
    main()

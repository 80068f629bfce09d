"""A real language model behind the cascade, over OpenAI's protocol: what is kept, and what that saves.

    kcm assets reviews SmolLM2-135M-Instruct-GGUF
    python benchmarks/language_model.py [--write]                                  SmolLM2-135M, llama.cpp
    python benchmarks/language_model.py --server transformers [--write]            the same, `transformers serve`
    python benchmarks/language_model.py --base-url http://HOST/v1 --model NAME     any other, such as a larger one

Clear tweets of the `reviews` data; the stages of `kcm run` up to its figures, so that every row is asked once and the
answers lie in --storage. Tokens and seconds are those of the server's answers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from by_steps import BY_STEPS, REVIEWS
from language_model_own import MODELS, OwnServer
from machine import machine
from rich.pretty import pprint

from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.run import run

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "language_model.json"
CLEAR = 2.0  # tweets whose mean rating is beyond it are clearly good or bad
EVEN = 0.5  # the share of one of two labels, which an answer gets at least
EPSILON = 0.1  # what so few certify rows can promise


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
    """What the cascade keeps on test rows, and what the server's answers took."""
    result = run(config, until="evaluate")
    outcomes = Path(result["artefacts"]["outcomes"])
    table = pq.read_table(outcomes / "task-0000.parquet")
    usage = json.loads((outcomes / "large.json").read_text(encoding="utf-8"))
    seconds = float(table["large_cost"].to_numpy().mean())
    tokens = usage["tokens"] / usage["rows"]
    surest_N = np.stack(table["large_probabilities"].to_numpy()).max(1)
    overall = result["kcm"]["overall"]
    saved = overall["calls_saved"]
    return {
        "model": model,
        "rows_asked": usage["rows"],
        "off_label": float((table["large_label"].to_numpy() < 0).mean()),
        "with_probabilities": float(np.isfinite(surest_N).mean()),
        "surer_than_even": float((surest_N > EVEN + 1e-6).mean()),
        "tokens_a_row": tokens,
        "seconds_a_row": seconds,
        **{key: overall[key] for key in ("num_rows", "small_accuracy", "large_accuracy", "cascade_accuracy")},
        "calls_saved": saved,
        "saved_per_1000_rows": {"tokens": 1000 * saved * tokens, "seconds": 1000 * saved * seconds},
        "certificate": {key: result["certificate"][key] for key in ("decision", "epsilon", "delta", "bound")},
        "machine": machine(),
    }


def main() -> None:
    """Start a server unless one is named, run, print, and write down with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=list(MODELS), default="llama.cpp", help="the server that is started")
    parser.add_argument("--base-url", metavar="URL", help="a server that runs, up to before /chat/completions")
    parser.add_argument("--model", help="of that server, as it knows it")
    parser.add_argument("--num-rows", type=int, default=240)
    parser.add_argument("--port", type=int, default=8765, help="of the server that is started")
    parser.add_argument("--storage", type=Path, default=Path("storage/language_model"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    model = arguments.model or MODELS[arguments.server]
    rows = arguments.storage / f"tweets-{arguments.num_rows}.jsonl"
    clear = clear_tweets(arguments.assets)
    write_rows(clear[: arguments.num_rows], rows)
    own = (
        None if arguments.base_url else OwnServer(arguments.server, arguments.assets, arguments.storage, arguments.port)
    )
    try:
        base_url = own.base_url if own else arguments.base_url
        config = configured(base_url, model, rows, arguments)
        found = measured(config, model)
    finally:
        if own:
            own.kill()
    pprint(found)
    if arguments.write:
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept[model] = kept.get(model, {}) | found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

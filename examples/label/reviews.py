"""`make label`: a real language model labels 1,000 texts with `kcm label`, offline.

SmolLM2-135M-Instruct runs behind llama.cpp's server. It is right on about 7 of 10 sentiments. That does not matter:
the promise is agreement with it. The target is low because a noisy model is hard to predict. Options of `kcm label`
may follow.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from pathlib import Path

from xllamacpp import CommonParams, Server

ASSETS = Path("assets")
MODEL = ASSETS / "SmolLM2-135M-Instruct-GGUF" / "SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_TEXTS, LENGTHS = 1000, range(20, 160)  # texts, and characters of each
NUM_SLOTS, TOKENS_PER_SLOT = 2, 1024  # requests that are answered at once

LABELS = """\
positive:
  description: The writer likes it.
  examples: ["Great sound, and it works perfectly.", "One of the best films of the year.", "I love this camera."]
negative:
  description: The writer dislikes it.
  examples: ["It broke after two days.", "A dull, predictable mess.", "Do not waste your money."]
"""


def texts() -> list[str]:
    """Short texts of the four kinds of the reviews, in random order."""
    lines = [
        line.split("\t")[2].strip()
        for file in sorted((ASSETS / "reviews").glob("*_GroundTruth.txt"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    short = sorted({line for line in lines if len(line) in LENGTHS})
    return random.Random(0).sample(short, NUM_TEXTS)


def served() -> Server:
    """The model behind llama.cpp's server, on a free port of this machine."""
    params = CommonParams()
    params.model.path, params.port, params.n_parallel = str(MODEL), 0, NUM_SLOTS
    params.n_ctx, params.cpuparams.n_threads = TOKENS_PER_SLOT * NUM_SLOTS, 1
    params.verbosity = 0
    return Server(params)


def main() -> None:
    """Write the table and the labels, serve the model, and label."""
    folder = Path("build") / "label"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts())])
    (folder / "labels.yaml").write_text(LABELS, encoding="utf-8")
    server = served()
    command = [Path(sys.executable).with_name("kcm"), "label", folder / "texts.csv", "--labels", folder / "labels.yaml"]
    model = ["--llm", "SmolLM2-135M-Instruct", "--base-url", f"{server.listening_address}/v1"]
    sys.exit(
        subprocess.call(
            [*map(str, command), *model, "--store", str(folder), "--ledger", str(folder / "ledger"), *sys.argv[1:]]
        )
    )


if __name__ == "__main__":
    main()

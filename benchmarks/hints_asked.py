"""Answers of a language model behind llama.cpp, with and without hints: asked once each, stored as lines of JSON.

A question is a prompt to complete by one token, for a base model: instructions and examples, then the hint, then the
text, in the order of `kcm.large.prompts`. Every label is one token, so one call gives the log-probability of every
label. The hint leaves its probability out: it then depends on the label alone, and labels + 1 calls a row serve every
small model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xllamacpp import CommonParams, Server

from benchmarks.hints_replay import Stored
from benchmarks.hints_tables import HintTable, encoded_labels

NUM_PROBABILITIES = 200  # likeliest tokens that a reply lists; a label beyond them has no log-probability
INSTRUCTIONS = "Classify the text. Answer with one of these labels and nothing else: "


@dataclass(frozen=True)
class Answer:
    """Log-probability of every label that the reply lists, and the likeliest token of all."""

    logprobs: Mapping[str, float]
    token: str

    @property
    def is_label(self) -> bool:
        """Whether the model writes a label if nothing constrains it."""
        return self.token.strip() in self.logprobs


def prompt_text(table: HintTable, text: str, hint: int | None) -> str:
    """The question about a text as one prompt, with a hint's label unless None."""
    examples = "".join(f"Text: {example}\nLabel: {label}\n\n" for example, label in table.examples)
    suggestion = "" if hint is None else f"A smaller model suggests {table.labels[hint]}.\n"
    return f"{INSTRUCTIONS}{', '.join(table.labels)}.\n\n{examples}{suggestion}Text: {text}\nLabel:"


def served(gguf: Path) -> Server:
    """llama.cpp with one thread, which keeps the prompt's beginning from call to call."""
    params = CommonParams()
    params.model.path, params.port, params.verbosity = str(gguf), 0, 0
    params.n_parallel, params.n_ctx, params.cache_ram_mib = 1, 2048, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.swa_full = True  # else a model with sliding windows reads the whole prompt again
    return Server(params)


def completed(server: Server, prompt: str, labels: tuple[str, ...]) -> Answer:
    """The next token after `prompt`. Raises RuntimeError if the server returns an error."""
    request = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": NUM_PROBABILITIES, "cache_prompt": True}
    reply: Any = server.handle_completions(request)
    if "choices" not in reply:
        raise RuntimeError(f"llama.cpp answered with an error: {str(reply)[:80]}")
    tokens = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    names = {f" {label}": label for label in labels}
    logprobs = {names[token["token"]]: token["logprob"] for token in tokens if token["token"] in names}
    return Answer(logprobs, tokens[0]["token"])


class Answers:
    """Stored answers of one model, by table, row and hint; a question is asked once."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self._answers = dict(self._read(line) for line in lines)

    @staticmethod
    def _read(line: str) -> tuple[str, Answer]:
        record = json.loads(line)
        return record["prompt"], Answer(record["logprobs"], record["token"])

    def find(self, prompt: str) -> Answer | None:
        """The stored answer to a prompt."""
        return self._answers.get(prompt)

    def ask(self, server: Server, table: HintTable, row: int, hint: int | None) -> Answer:
        """The answer about a row, from the store or from the server."""
        prompt = prompt_text(table, table.asked[row][0], hint)
        if (answer := self.find(prompt)) is None:
            answer = self._answers[prompt] = completed(server, prompt, table.labels)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"prompt": prompt, "logprobs": answer.logprobs, "token": answer.token}) + "\n")
        return answer


def short(table: HintTable, answers: Answers) -> dict[str, Any]:
    """The answers of a table as text, a line a row: rows up to the first that lacks an answer.

    `best` has a digit an answer, the number of the likeliest label (`-` if the reply lists none), first without a hint;
    `off_label` is 1 if the likeliest token is no label; `logprobs` come from the prompt without a hint.
    """
    lines: dict[str, list[str]] = {"best": [], "off_label": [], "logprobs": []}
    for text, _ in table.asked:
        prompts = [prompt_text(table, text, hint) for hint in (None, *range(len(table.labels)))]
        row = [answer for prompt in prompts if (answer := answers.find(prompt))]
        if len(row) < len(prompts):
            break
        likeliest = [max(answer.logprobs, key=answer.logprobs.__getitem__, default=None) for answer in row]
        lines["best"].append("".join("-" if name is None else str(table.labels.index(name)) for name in likeliest))
        lines["off_label"].append("".join(str(int(not answer.is_label)) for answer in row))
        lines["logprobs"].append(" ".join(f"{row[0].logprobs.get(name, -np.inf):.2f}" for name in table.labels))
    return {"labels": list(table.labels), "texts": _digest(table, len(lines["best"])), **lines}


def stored(table: HintTable, record: Mapping[str, Any]) -> Stored:
    """The answers of a table from their short form. Raises ValueError if they belong to other texts."""
    num_rows = len(record["best"])
    if record["texts"] != _digest(table, num_rows):
        raise ValueError(f"the stored answers of {table.name} belong to other texts: ask again")
    return Stored(
        gold=encoded_labels(table.asked[:num_rows]),
        best=np.array([[-1 if digit == "-" else int(digit) for digit in line] for line in record["best"]]),
        off_label=np.array([[digit == "1" for digit in line] for line in record["off_label"]]),
        logprobs=np.array([[float(value) for value in line.split()] for line in record["logprobs"]]),
    )


def _digest(table: HintTable, num_rows: int) -> str:
    """A digest of the first texts of a table and their labels."""
    return hashlib.sha256(repr(table.asked[:num_rows]).encode()).hexdigest()

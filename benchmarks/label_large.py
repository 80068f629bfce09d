"""`kcm label` on a large table: two Ray nodes encode, the job is killed twice, and a fake server counts its questions.

    python benchmarks/label_large.py --rows 1000000 [--write]

Rows are short texts with five labels; the encoder is a network of random weights. The first kill comes while the pilot
is bought, the second later, while rounds of training or the draw are. A node dies 20 s after the second start.
`--write` puts the figures into benchmarks/results/label_large.json.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ray.cluster_utils import Cluster
from rich.pretty import pprint
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks.machine import machine
from benchmarks.script import keep, options, write
from benchmarks.upstream import Reply, labelled, upstream
from pipelines.cluster.connection import MODE, settings

TOPICS = ("billing", "delivery", "login", "refund", "other")
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
NODE_LOST_AFTER_S = 20.0  # since the second start
KILLS = (100, 400)  # questions after which the job is killed
WORDS = ("please", "today", "again", "help", "order", "number", "still", "thanks")
_SECOND = ("invoice", "parcel", "password", "money", "question")  # of each topic
_ENDS = re.compile(rf"(\d+) ({'|'.join(TOPICS)})")  # of a text
GIB = 2**30


@dataclass(frozen=True)
class Start:
    """One start of the job: its exit status, peak memory in bytes, and CPU seconds, without those of Ray's nodes."""

    status: int
    peak: int
    seconds: float


def write_table(file: Path, num_rows: int) -> None:
    """Different short texts; one in 20 has a word of another topic, or of its own."""
    rng = np.random.default_rng(0)
    topics = rng.integers(len(TOPICS), size=num_rows)
    seconds = np.where(rng.random(num_rows) < 0.05, rng.integers(len(TOPICS), size=num_rows), topics)
    more = rng.integers(len(WORDS), size=(num_rows, 2))
    lines = (
        f"{_SECOND[second]} {WORDS[a]} {WORDS[b]} {number} {TOPICS[topic]}"
        for number, (topic, second, (a, b)) in enumerate(zip(topics, seconds, more.tolist(), strict=True))
    )
    pd.DataFrame({"text": list(lines)}).to_csv(file, index=False)


def write_encoder(folder: Path) -> None:
    """A BERT of random weights that knows the words of the table, but not the topics at their end."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_SECOND, *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(_SECOND) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


class Server:
    """What the fake large model was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, question: str) -> Reply:
        """The topic that ends the text."""
        content = json.loads(question)["messages"][-1]["content"]
        number, topic = _ENDS.findall(content)[-1]
        with self._lock:
            self.asked[number] += 1
        return labelled(topic)


def started(words: list[str], user: Path, is_enough: Callable[[], bool]) -> Start:
    """Start the job and kill it once it `is_enough`."""
    environment = os.environ | {"XDG_DATA_HOME": str(user)}
    log = user.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.05):
            if is_enough():
                process.send_signal(signal.SIGKILL)
                return

    watcher = threading.Thread(target=kill)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    done.set()
    watcher.join()
    if (code := os.waitstatus_to_exitcode(status)) > 0:
        print(log.read_text(errors="replace"), file=sys.stderr)  # it says why
    return Start(code, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)


def measured(num_rows: int) -> dict[str, Any]:
    """Three starts of one job, of which the first two are killed."""
    server = Server()
    with (
        tempfile.TemporaryDirectory() as name,
        upstream(server) as address,
        settings(
            {MODE: "disabled"}
        ),  # of nodes and job alike, whatever a test session has set for a cluster of its own
    ):
        folder = Path(name)
        write_table(folder / "rows.csv", num_rows)
        write_encoder(folder / "encoder")
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        node = cluster.add_node(**NODE)
        words = [sys.executable, "-m", "jobs.cli", "label", str(folder / "rows.csv"), "--llm", "fake"]
        words += ["--base-url", address, "--labels", ",".join(TOPICS), "--encoder", str(folder / "encoder")]
        words += ["--cluster", cluster.address, "--yes", "--json", str(folder / "result.json")]
        try:
            starts = [started(words, folder / "user", lambda: server.asked.total() >= KILLS[0])]
            loss = threading.Timer(NODE_LOST_AFTER_S, cluster.remove_node, (node,), {"allow_graceful": False})
            loss.start()
            starts.append(started(words, folder / "user", lambda: server.asked.total() >= KILLS[1]))
            loss.join()
            cluster.add_node(**NODE)
            starts.append(started(words, folder / "user", lambda: False))
        finally:
            cluster.shutdown()
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if "error" in result:
            raise RuntimeError(f"the starts ended with {[start.status for start in starts]}: {result['error']}")
        frame = pd.read_csv(folder / "rows.labelled.csv", usecols=["text", "label"])
    differ = int((frame["text"].str.rsplit(" ", n=1).str[-1] != frame["label"]).sum())
    return {
        "rows": num_rows,
        "statuses": [start.status for start in starts],
        "bought": result["bought"],
        "asked": server.asked.total(),
        "asked_twice": sum(count > 1 for count in server.asked.values()),
        "promised": result["promised"],
        "certified": result["certified"],
        "differ": differ,
        "peak_gib": round(starts[-1].peak / GIB, 2),
        "cpu_seconds": round(starts[-1].seconds, 1),
    }


def main() -> None:
    """Print the figures of each size."""
    parser = options(__doc__, results="label_large")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    figures = [measured(rows) for rows in given.rows]
    pprint(figures)
    if given.json:
        write(given.json, {"rows": figures})
    if given.write:
        keep("label_large", {"machine": machine(), "rows": figures})


if __name__ == "__main__":
    main()

"""Tables of texts labelled by the command `kcm label` with recorded answers, and the calibration of its judge."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import kcm.labelling.label
import kcm.labelling.text
from benchmarks.label_tables import TextTable
from jobs.cli import app
from kcm.labelling.judge import Judge
from kcm.labelling.text import VectorSide

CHEAPER_PRICE = 1 / 15  # of an answer of the cheaper model, in answers of the oracle
JUDGE_BOUGHT = (500, 1500)  # rows that the small model and the judge learn from
NUM_BINS = 15  # of the expected calibration error, of equal count


def encode_once(folder: Path) -> None:
    """Encode every table once, into a file of `folder`; the command does so once per run, with the same vectors."""
    encoded = kcm.labelling.label.encoded

    def stored(texts: Sequence[str], *rest: Any) -> np.ndarray:
        file = folder / f"{hashlib.sha256(json.dumps([*texts, str(rest[0])]).encode()).hexdigest()[:32]}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, encoded(texts, *rest))
        return np.load(file)

    kcm.labelling.label.encoded = stored  # type: ignore[assignment]


def run_command(
    table: TextTable, target: float, delta: float, seed: int, assets: Path, cheaper: bool = False
) -> dict[str, Any]:
    """Figures of one run of `kcm label TABLE --answers COLUMN`, with a store and a ledger of its own.

    `calls` is the share of rows whose answer was bought, `differ` counts the delivered labels that are not the
    oracle's, from the output; `money` adds the price of the cheaper model's answers.
    """
    columns = [table.cheaper, table.oracle] if cheaper and table.cheaper else [table.oracle]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, labels, result = folder / "rows.csv", folder / "labels.txt", folder / "result.json"
        table.frame[["text", *columns]].to_csv(file, index=False)
        labels.write_text("\n".join(table.labels) + "\n", encoding="utf-8")
        words = ["label", str(file), "--text", "text", "--labels", str(labels), "--yes", "--json", str(result)]
        words += [word for column in columns for word in ("--answers", column)]
        words += ["--target", str(target), "--delta", str(delta), "--seed", str(seed)]
        words += ["--assets-path", str(assets)]
        shown = CliRunner().invoke(app, words, env={"XDG_DATA_HOME": name})
        if not result.exists():
            raise RuntimeError(f"kcm {' '.join(words)} failed: {shown.output} {shown.exception!r}")
        figures = json.loads(result.read_text(encoding="utf-8"))
        delivered = output_labels([each for each in folder.glob("*.csv") if each != file], len(table.frame))
    calls = figures["bought"] / figures["rows"]
    return {
        "calls": calls,
        "money": calls + CHEAPER_PRICE * figures.get("bought_cheaper", 0) / figures["rows"],
        "differ": int((delivered != table.answers).sum()),
        "promised": figures["promised"],
        "certified": figures["certified"],
    }


def output_labels(files: list[Path], num_rows: int) -> np.ndarray:
    """The column `label` [N] of the labelled table among `files`."""
    for file in files:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        if "label" in frame and len(frame) == num_rows:
            return frame["label"].to_numpy()
    raise FileNotFoundError(f"no labelled table of {num_rows} rows among {[file.name for file in files]}")


class RecordedJudge(Judge):
    """The judge as shipped; keeps what the last one was fitted to and asked about."""

    fitted_to: ClassVar[tuple[dict[str, np.ndarray], np.ndarray]]
    asked_about: ClassVar[list[dict[str, np.ndarray]]]

    @classmethod
    def fitted(cls, signals: Any, right_B: np.ndarray) -> Judge:
        RecordedJudge.fitted_to, RecordedJudge.asked_about = (dict(signals), right_B), []
        return super().fitted(signals, right_B)

    def wrong(self, signals: Any) -> np.ndarray:
        self.asked_about.append(dict(signals))
        return super().wrong(signals)


def judged(table: TextTable, vectors: np.ndarray, num_bought: int, seed: int) -> Iterator[dict[str, Any]]:
    """Calibration on rows that were not bought: the judge, logistic regression and boosting on the same signals.

    `probability` is the small model's own largest probability.
    """
    kcm.labelling.text.Judge = RecordedJudge  # type: ignore[misc]
    names, code_N = np.unique(table.answers.astype(str), return_inverse=True)
    bought = np.random.default_rng(seed).permutation(len(code_N))[:num_bought]
    side = VectorSide(vectors, seed=seed)
    guess = side.fit(bought, code_N[bought])
    signals_B, right_B = RecordedJudge.fitted_to
    fresh = np.setdiff1d(np.arange(len(code_N)), bought)
    right = (guess.answer_U == code_N)[fresh]
    parts = RecordedJudge.asked_about  # at last about all rows, in order
    signals_U = {name: np.concatenate([part[name] for part in parts])[-len(code_N) :][fresh] for name in signals_B}
    x_B, x_U = (np.stack([columns[signal] for signal in signals_B], 1) for columns in (signals_B, signals_U))
    chances = {
        "KAN judge": 1 - guess.wrong_U[fresh],
        "probability": 1 / (1 + np.exp(-signals_U["probability"])),
    }
    for name, model in {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "boosting": HistGradientBoostingClassifier(random_state=seed),
    }.items():
        chances[name] = model.fit(x_B, right_B).predict_proba(x_U)[:, 1]
    for name, chance in chances.items():
        row = {"cell": "judge", "table": table.name, "labels": len(names), "bought": num_bought, "judge": name}
        yield row | calibration(chance, right)


def calibration(chance: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Log loss, and expected calibration error over bins of equal count, of P(right) [N]."""
    p = np.clip(chance, 1e-6, 1 - 1e-6)
    loss = -np.where(right, np.log(p), np.log1p(-p)).mean()
    bins = np.array_split(np.argsort(p, kind="stable"), NUM_BINS)
    gaps = [len(rows) * abs(p[rows].mean() - right[rows].mean()) for rows in bins if len(rows)]
    return {"log_loss": round(float(loss), 4), "ece": round(float(sum(gaps) / len(p)), 4)}


def kept_first(vectors: np.ndarray, labels: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Whether the small model is right on the fresh rows, in the order in which its judge keeps them.

    It learns from the rows that are not fresh; `vectors` [N, D], `labels` [N], `fresh` [N] (bool).
    """
    _, code_N = np.unique(labels, return_inverse=True)
    given = np.flatnonzero(~fresh)
    guess = VectorSide(vectors).fit(given, code_N[given])
    rows = np.flatnonzero(fresh)
    rows = rows[np.argsort(guess.wrong_U[rows], kind="stable")]
    return np.asarray(guess.answer_U[rows] == code_N[rows])


def kept_at(right: np.ndarray, agreement: float) -> float:
    """The largest share of rows, kept in this order, of which at least `agreement` are right."""
    enough = np.flatnonzero(np.cumsum(right) >= agreement * np.arange(1, len(right) + 1))
    return float((enough[-1] + 1) / len(right)) if len(enough) else 0.0

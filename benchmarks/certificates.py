"""How often a promise is broken: simulated worlds whose true loss lies just above what is promised.

    python benchmarks/certificates.py [--worlds 1000] [--only KIND] [--write]

In every world all that is lost lies among the tenth of the inputs with the highest gate scores: whoever keeps all of
them loses 1.05 epsilon. A certificate that deploys a threshold below them is false. Worlds come in kinds: rows that
are independent; units of three equal rows; a third of the certify rows near-copies of the rows that the threshold was
searched on; eight looks at the same rows by runs of other names, six of them after the storage was copied, three in
either copy. The ledger goes by the rows, but a copy cannot see the looks of the other one. In one kind three
regressions are fitted to train rows, and what each says of these rows left out chooses one and its threshold; its
truth is 40,000 fresh rows. In two kinds a user takes the best of 20 looks at one table of 800 rows, by `kcm.certify`:
one of three models with scores of their own, epsilons, subsets and supersets; all in one ledger, or in none. At most
delta of the worlds may have a false certificate; the interval is Clopper and Pearson's at 95%.
`--write` puts the figures into benchmarks/results/certificates.json.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.pretty import pprint
from scipy.stats import binomtest

from benchmarks.machine import machine
from benchmarks.script import keep, options
from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Decision
from kcm.certification.certificate import Certificate, CertificateConfig, CertifiedWindow, certify
from kcm.certification.ledger import Ledger, unit_hashes
from kcm.certification.scores import certify as certify_scores
from kcm.certification.traffic import Traffic
from kcm.certification.window import certify_traffic
from kcm.closed_form.left_out import ridge_left_out
from kcm.metrics.intervals import Units

EPSILON, DELTA = 0.02, 0.1
CONFIG = CertificateConfig(epsilon=EPSILON, delta=DELTA)
RISKY = 0.1  # share of the inputs, with the highest scores, that contain all losses
EXCESS = 1.05  # the loss of whoever keeps all of them, in epsilon
NUM_ROWS, NUM_DECISIONS = 2000, 20_000
NUM_ASKED, NUM_MORE, NUM_MODELS = 800, 200, 3  # rows of a table, rows of a superset, models with answers in it


def draw(rng: np.random.Generator, num_rows: int, copies: int = 1) -> ScoredOutcomes:
    """Rows of such a world, in units of `copies` equal ones; the large model is always right."""
    score_N = np.repeat(rng.random(num_rows // copies), copies)
    lost_N = np.repeat(rng.random(num_rows // copies), copies) < EXCESS * EPSILON / RISKY
    lost_N &= score_N > 1 - RISKY
    unit_N = np.repeat(np.arange(num_rows // copies), copies).astype(str).astype(object)
    return ScoredOutcomes(
        score=score_N, small_correct=~lost_N, large_correct=np.ones(len(score_N), dtype=bool), group=unit_N
    )


def is_false(certificate: Certificate) -> bool:
    """Whether the deployed decision loses more than was promised, in truth."""
    if certificate.decision == "escalate_all":
        return False
    return loses_more(-np.inf if certificate.threshold is None else certificate.threshold, certificate.epsilon)


def loses_more(threshold: float, epsilon: float) -> bool:
    """Whether whoever keeps scores above the threshold loses more than `epsilon`, in truth."""
    kept_of_risky = min(1.0, (1 - threshold) / RISKY)
    return bool(kept_of_risky * EXCESS * EPSILON > epsilon)


def searched(validate: ScoredOutcomes) -> Decision:
    """The threshold that a search takes which may lose epsilon on validate rows."""
    return Decision.of(Frontier.of(validate).cheapest(EPSILON).threshold)


def on_rows(method: str, copies: int = 1, duplicated: float = 0.0) -> Callable[[np.random.Generator], bool]:
    """A world that certifies once, by `method`; with `duplicated`, the certify rows repeat the search rows."""
    config = CONFIG.model_copy(update={"method": method})

    def world(rng: np.random.Generator) -> bool:
        validate, rows = draw(rng, NUM_ROWS, copies), draw(rng, NUM_ROWS, copies)
        if duplicated:
            rows = with_copies(rows, validate, round(duplicated * NUM_ROWS))
        return is_false(certify(validate, rows, searched(validate), config))

    return world


def with_copies(rows: ScoredOutcomes, validate: ScoredOutcomes, count: int) -> ScoredOutcomes:
    """The rows, the first `count` of them replaced by rows of the search."""
    return replace(
        rows,
        score=np.concatenate([validate.score[:count], rows.score[count:]]),
        small_correct=np.concatenate([validate.small_correct[:count], rows.small_correct[count:]]),
    )


def by_many_looks(rng: np.random.Generator) -> bool:
    """Two runs certify on the same rows, then the storage is copied, and three more run in either copy."""
    rows = draw(rng, NUM_ROWS)
    units = unit_hashes(f"row {number}" for number in range(NUM_ROWS))
    config = CONFIG.model_copy(update={"method": "regret"})

    def certifies_falsely(ledger: Ledger, run: str) -> bool:
        validate = draw(rng, NUM_ROWS)
        look = ledger.look(units, delta=DELTA, digest=run, purpose="world")
        return is_false(certify(validate, rows, searched(validate), config, delta=look.spend))

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger")
        outcomes = [certifies_falsely(ledger, f"run {number}") for number in range(2)]
        copy = Ledger(shutil.copytree(Path(folder) / "ledger", Path(folder) / "copy"))
        outcomes += [certifies_falsely(place, f"renamed {number}") for place in (ledger, copy) for number in range(3)]
    return any(outcomes)


@dataclass
class Memory:
    """A place for a ledger that is gone with the world."""

    files: dict[str, bytes] = field(default_factory=dict)
    uri: str = "memory"

    def create(self, name: str, content: bytes) -> bool:
        return self.files.setdefault(name, content) is content

    def read(self, name: str) -> bytes:
        return self.files[name]

    def list(self, name: str) -> Iterator[Path]:
        return (Path(file) for file in sorted(self.files) if file.startswith(f"{name}/"))


def by_the_best_of_20_looks(counts_looks: bool, rng: np.random.Generator) -> bool:
    """A user who looks 20 times at one table, in one ledger or without any, and takes any certificate there is."""
    num_rows = NUM_ASKED + NUM_MORE
    models = [draw(rng, num_rows) for _ in range(NUM_MODELS)]
    names = [f"question {number} of a world" for number in range(num_rows)]
    ledger = Ledger(Memory()) if counts_looks else None

    def certifies_falsely() -> bool:
        model, kind = models[rng.integers(NUM_MODELS)], rng.integers(3)
        rows = np.arange(NUM_ASKED if kind else num_rows)  # a superset
        if kind == 1:
            rows = np.sort(rng.choice(NUM_ASKED, round(0.7 * NUM_ASKED), replace=False))
        certificate = certify_scores(
            model.score[rows],
            model.small_correct[rows],
            model.large_correct[rows],
            max_loss=float(rng.choice([0.018, 0.02, 0.02])),
            delta=DELTA,
            groups=[names[row] for row in rows],
            ledger=ledger,
        )
        return certificate.threshold is not None and loses_more(certificate.threshold, certificate.max_loss)

    return any(certifies_falsely() for _ in range(20))


def on_traffic(share: float, rng: np.random.Generator) -> bool:
    """A window of traffic, audited at a share, certifies a challenger without labels."""
    score_N = rng.random(NUM_DECISIONS)
    disagrees_N = (score_N > 1 - RISKY) & (rng.random(NUM_DECISIONS) < EXCESS * EPSILON / RISKY)
    asked_N = rng.random(NUM_DECISIONS) < share
    traffic = Traffic(
        score=score_N, asked=asked_N, probability=np.full(NUM_DECISIONS, share), disagrees=disagrees_N, floor=share
    )
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    window = CertifiedWindow(
        application="worlds",
        after=0,
        upto=NUM_DECISIONS,
        begins_at=begins,
        ends_at=begins + timedelta(days=1),
        expires_at=begins + timedelta(days=30),
        num_decisions=NUM_DECISIONS,
        num_asked=int(asked_N.sum()),
    )
    return is_false(certify_traffic(traffic, Decision.of(0.0), CONFIG, window, delta=DELTA))


def by_left_out_rows(rng: np.random.Generator) -> bool:
    """Regressions on random units: which of them, and its threshold, is chosen by the very rows they were fitted to."""
    directions = rng.normal(size=(8, 3))

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(count, 8))
        return x, (x @ directions + 2 * rng.gumbel(size=(count, 3))).argmax(1)

    def judged(score_NC: np.ndarray, label: np.ndarray) -> ScoredOutcomes:
        correct_N = score_NC.argmax(1) == label
        return ScoredOutcomes(
            score=score_NC.max(1), small_correct=correct_N, large_correct=np.ones(len(correct_N), dtype=bool)
        )

    (x, label), (certify_x, certify_label), (fresh_x, fresh_label) = map(drawn, (500, 600, 40_000))
    candidates = []
    for width in (4, 16, 64):
        units = rng.normal(size=(8, width))
        inputs, later, fresh_inputs = (np.maximum(rows @ units, 0) for rows in (x, certify_x, fresh_x))
        fit = ridge_left_out(inputs.__getitem__, np.eye(3)[label], Units(None, len(x)))
        chosen_rows = judged(fit.left_out, label)
        scores = [fit.constant + rows @ fit.weight for rows in (later, fresh_inputs)]
        candidates.append((Frontier.of(chosen_rows).cheapest(EPSILON).call_rate, chosen_rows, *scores))
    _, chosen_rows, later, fresh_inputs = min(candidates, key=lambda candidate: candidate[0])
    certificate = certify(chosen_rows, judged(later, certify_label), searched(chosen_rows), CONFIG)
    threshold = -np.inf if certificate.threshold is None else certificate.threshold
    truth = judged(fresh_inputs, fresh_label)
    loss = float(((truth.score > threshold) & ~truth.small_correct).mean())
    return certificate.decision != "escalate_all" and loss > EPSILON


WORLDS: dict[str, Callable[[np.random.Generator], bool]] = {
    "regret, independent rows": on_rows("regret"),
    "regret, units of three equal rows": on_rows("regret", copies=3),
    "regret, a third copies of the searched rows": on_rows("regret", duplicated=1 / 3),
    "regret, eight looks by other names, in two copies of a storage": by_many_looks,
    "the best of 20 looks, in one ledger": partial(by_the_best_of_20_looks, True),
    "the best of 20 looks, in no ledger": partial(by_the_best_of_20_looks, False),
    "auto, searched by train rows left out": by_left_out_rows,
    "auto, independent rows": on_rows("auto"),
    "net, independent rows": on_rows("net"),
    "net, units of three equal rows": on_rows("net", copies=3),
    "net, a third copies of the searched rows": on_rows("net", duplicated=1 / 3),
    "traffic, audits at a share of 20%": partial(on_traffic, 0.2),
    "traffic, the large model asked about everything": partial(on_traffic, 1.0),
}


def measured(num_worlds: int, only: str) -> Iterator[dict[str, Any]]:
    """Each kind of world: how many had a false certificate, and the interval of their share."""
    for kind, world in WORLDS.items():
        if only not in kind:
            continue
        count = sum(world(np.random.default_rng([2026, number])) for number in range(num_worlds))
        share = binomtest(count, num_worlds).proportion_ci()
        ends = {"low": round(float(share.low), 4), "high": round(float(share.high), 4)}
        yield {"world": kind, "false": count, "worlds": num_worlds} | ends


def main() -> None:
    """Print the figures, and write them with `--write`."""
    parser = options(__doc__, results="certificates")
    parser.add_argument("--worlds", type=int, default=1000, help="simulated worlds of each kind")
    parser.add_argument("--only", default="", help="kinds whose name has this in it")
    arguments = parser.parse_args()
    results = {"machine": machine(), "rows": list(measured(arguments.worlds, arguments.only))}
    pprint(results)
    if arguments.write:
        keep("certificates", results)


if __name__ == "__main__":
    main()

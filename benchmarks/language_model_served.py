"""A real language model behind a served cascade: what is kept; a restart under way, an outage, and overload.

Played by benchmarks/language_model.py --served. The bundle is that of its run; the certified policy keeps everything,
and so the threshold is put at the median gate score here, that there be something to escalate. Every text is asked for
by one client, and the log's database keeps what was paid.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
from language_model_gateway import Gateway, gateway
from machine import free_port
from ray import serve

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_small_side
from kcm.cascade.policy import Decision, Policy
from kcm.config import parse_config
from kcm.inputs.content import Content
from kcm.large import Item, OpenAiConfig
from kcm.large.adapters.openai import openai_identity
from kcm.large.prompting.replies import answer_schema, matching_label, reply_label
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import build_app, start
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource

CLIENTS, CROWD = 4, 16  # the crowd comes under overload
DOWN_S = 3.0
NUM_MIXED, NUM_STREAMED, NUM_RESTART, NUM_GONE, NUM_OVERLOAD = 40, 7, 16, 28, 32  # restart and outage: NUM_GONE
NUM_TEXTS = NUM_MIXED + 2 * (NUM_STREAMED + NUM_GONE + 2 * NUM_OVERLOAD) + 20  # about half of which are escalated
MAX_TOKENS = 26  # of an answer, as the cascade itself allows these labels
SERVED_S = 45.0  # what a request may take


class Life(Protocol):
    """A server that may be killed and started again."""

    def start(self) -> None:
        """Return once it answers."""

    def kill(self) -> None:
        """Without any warning."""


@dataclass(frozen=True)
class Answered:
    """What became of one request; `route` is the HTTP status where there is no answer."""

    text: str
    route: str
    seconds: float


def split(folder: Path, model: OpenAiConfig, assets: Path, texts: Sequence[str], into: Path) -> tuple[Path, list[bool]]:
    """The bundle of `folder` with `model` behind it, keeping the surer half of `texts`; and which these are."""
    bundle = Bundle.read(folder)
    judged = load_small_side(bundle, assets).judge([Input(Content(text)) for text in texts])
    scores = np.array([judgement.gate_score for judgement in judged])
    halfway = float(np.median(scores))
    policy = Policy(decision=Decision(decision="threshold", threshold=halfway), temperature=bundle.policy.temperature)
    identity = openai_identity(model, bundle.label_names)
    own = replace(bundle, large=model, large_identity=identity, policy=policy, certificates={}, drift=None)
    return own.write(into / "bundle"), (scores > halfway).tolist()


def serve_config(log: Path, model: OpenAiConfig) -> ServeConfig:
    """What an operator would write for a model that takes seconds for an answer."""
    return parse_config(
        ServeConfig,
        {
            "port": free_port(),
            "timeout_s": SERVED_S,
            "feedback": {"url": f"sqlite:///{log}"},
            "large": {
                "timeout_s": SERVED_S - 5,
                "attempt_timeout_s": 25.0,
                "breaker": {"failures": 5, "rest_s": 2.0},
                "upstreams": [model.upstream.model_dump()],
            },
        },
    )


@contextmanager
def service(bundle: Path, model: OpenAiConfig, assets: Path, log: Path) -> Iterator[str]:
    """The address of the cascade, served as `kcm serve` does."""
    prepare_environment()
    with connected(ClusterConfig()):
        config = serve_config(log, model)
        try:
            yield start(build_app(FixedSource(Release(version="tweets/1", bundle=bundle)), config, assets), config)
        finally:
            serve.shutdown()


def ask(url: str, text: str) -> Answered:
    """One text in a request of its own."""
    started = time.perf_counter()
    response = httpx.post(f"{url}/v1/predict", json={"inputs": [{"text": text}]}, timeout=2 * SERVED_S)
    seconds = time.perf_counter() - started
    if response.status_code != 200:
        return Answered(text, str(response.status_code), seconds)
    return Answered(text, response.json()["answers"][0]["route"], seconds)


def crowd(url: str, texts: Sequence[str], clients: int, during: Callable[[], None] | None = None) -> list[Answered]:
    """All texts asked by so many clients, each a text at a time; something may be done meanwhile."""
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(ask, url, text) for text in texts]
        if during is not None:
            during()
        return [future.result() for future in futures]


def summary(answers: Sequence[Answered]) -> dict[str, Any]:
    """How many requests took which route, and how long they took."""
    seconds = np.array([answer.seconds for answer in answers])
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return {
        "requests": len(answers),
        "routes": dict(Counter(answer.route for answer in answers)),
        "seconds": {"p50": float(p50), "p95": float(p95), "longest": float(seconds.max())},
    }


def kept(url: str, texts: Sequence[str], passing: Gateway) -> dict[str, Any]:
    """What the small side keeps, and what that saves: tokens and seconds as of the items that were escalated."""
    before, answered = (passing.tokens, passing.seconds), passing.answered.total()
    answers = crowd(url, texts, CLIENTS)
    small = sum(answer.route == "small" for answer in answers)
    escalated = passing.answered.total() - answered  # with those whose answer is no label
    after = passing.tokens, passing.seconds
    tokens, seconds = ((total - earlier) / escalated for total, earlier in zip(after, before, strict=True))
    return summary(answers) | {
        "answered_calls": escalated,
        "kept": small,
        "saved": {"tokens": small * tokens, "seconds": small * seconds},
        "milliseconds": {
            "kept": 1000 * float(np.median([each.seconds for each in answers if each.route == "small"])),
            "escalated": 1000 * float(np.median([each.seconds for each in answers if each.route != "small"])),
        },
    }


def restarted(url: str, texts: Sequence[str], passing: Gateway, life: Life) -> dict[str, Any]:
    """The server is killed while questions are under way, and started again; then what it answered is asked again."""

    def restart() -> None:
        before = passing.answered.total()
        while passing.answered.total() < before + 2:
            time.sleep(0.05)
        life.kill()
        time.sleep(DOWN_S)
        life.start()

    first = passing.answered.total()
    answers = crowd(url, texts, CLIENTS, restart)
    paid = passing.answered.total()
    crowd(url, [each.text for each in answers if each.route == "large"], CLIENTS)
    return summary(answers) | {
        "answered_calls": paid - first,
        "lost_calls": passing.broken,
        "paid_again": passing.answered.total() - paid,
    }


def outage(url: str, texts: Sequence[str], passing: Gateway, life: Life) -> dict[str, Any]:
    """The server is gone for as long as it is asked; then how many requests it takes until it answers again."""
    life.kill()
    answers = crowd(url, texts, CLIENTS)
    life.start()
    before, after = passing.answered.total(), 0
    while passing.answered.total() == before:
        ask(url, texts[after % len(texts)])
        after += 1
    return summary(answers) | {"requests_until_it_answers_again": after}


def overloaded(url: str, texts: Sequence[str], passing: Gateway, room: int | None) -> dict[str, Any]:
    """More clients than the server takes questions at once; it refuses the others with 429, or has no limit."""
    passing.room, refused, double = room, passing.refused, passing.double
    answered = passing.answered.total()
    answers = crowd(url, texts, CROWD)
    passing.room = None
    return summary(answers) | {
        "clients": CROWD,
        "room": room,
        "refused_calls": passing.refused - refused,
        "answered_calls": passing.answered.total() - answered,
        "answered_twice": passing.double - double,
    }


def settled(server: str, model: OpenAiConfig, labels: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """The server's answers as streams: when the label is settled, out of all tokens that are written and of the time.

    The first text warms up what all questions share, and is not counted; nor is an answer without a label.
    """
    shares, written, without = [], [], 0
    for text in texts:
        messages = [asdict(message) for message in model.messages(labels, Item("", Content(text)))]
        body = {"model": model.model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS, "stream": True}
        body |= {"response_format": answer_schema(labels)}
        so_far, at_token, at_s, num_tokens, started = "", 0, 0.0, 0, time.perf_counter()
        with httpx.stream("POST", f"{server}/chat/completions", json=body, timeout=60) as stream:
            for line in stream.iter_lines():
                event = line.removeprefix("data: ")
                piece = json.loads(event)["choices"][0]["delta"].get("content") if event.startswith("{") else None
                if not piece:
                    continue
                so_far, num_tokens = so_far + piece, num_tokens + 1
                if not at_token and any(label in so_far.casefold() for label in labels):
                    at_token, at_s = num_tokens, time.perf_counter() - started
        if text == texts[0]:
            continue
        if matching_label(reply_label(so_far), labels) is None:
            without += 1
            continue
        shares.append(1 - at_s / (time.perf_counter() - started))
        written.append((at_token, num_tokens))
    found: dict[str, Any] = {"answers": len(texts) - 1, "without_a_label": without}
    if not written:
        return found
    of_tokens, tokens = (float(np.mean(column)) for column in zip(*written, strict=True))
    return found | {"settled_after_tokens": of_tokens, "of_tokens": tokens, "seconds_left": float(np.mean(shares))}


def played(
    folder: Path, model: OpenAiConfig, assets: Path, texts: Sequence[str], server: str, room: int, life: Life | None
) -> dict[str, Any]:
    """All of it; the restart only where the server's `life` is ours."""
    with tempfile.TemporaryDirectory() as name, gateway(server) as passing:
        # A budget keeps what is paid in the log's database, for all replicas and over restarts.
        model = model.model_copy(update={"base_url": passing.base_url, "max_calls": 10_000})
        bundle, keeps = split(folder, model, assets, texts, Path(name))
        hard = [text for text, keep in zip(texts[NUM_MIXED:], keeps[NUM_MIXED:], strict=True) if not keep]
        found: dict[str, Any] = {"stream": settled(server, model, Bundle.read(bundle).label_names, hard[:NUM_STREAMED])}
        hard = hard[NUM_STREAMED:]
        with service(bundle, model, assets, Path(name) / "log.db") as url:
            found["kept"] = kept(url, texts[:NUM_MIXED], passing)
            if life is not None:
                found["restart"] = restarted(url, hard[:NUM_RESTART], passing, life)
                found["outage"] = outage(url, hard[NUM_RESTART:NUM_GONE], passing, life)
            found["overload"] = overloaded(url, hard[NUM_GONE:][:NUM_OVERLOAD], passing, room)
            found["no_limit"] = overloaded(url, hard[NUM_GONE + NUM_OVERLOAD :][:NUM_OVERLOAD], passing, None)
        return found | {"questions_answered_twice": passing.double}

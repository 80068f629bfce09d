"""The HTTP interface without Ray: one process, a real small side, a large model that answers at once."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide, logits
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certification.certificate import Certificate
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import Encoder
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.base import Cost
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.models.judging import Judging, PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion, CertificateGuard
from pipelines.serve.config import MAX_PIXELS, TOP_K, FeedbackConfig, ServeConfig
from pipelines.serve.http.api import create_api
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release
from tests.ports import free_port
from tests.waiting import wait_until

HOSTILE = '<img src=x onerror="window.broken=1">&amp;<script>window.broken=1</script>'
CERTIFICATE = Certificate(
    method="regret",
    epsilon=0.02,
    delta=0.1,
    decision="threshold",
    threshold=0.5,
    bound=0.018,
    valid=True,
    call_rate=0.5,
    searched=KEEP_ALL,
    certified=KEEP_ALL,
    num_rows=1400,
    num_units=1400,
    fewest_units=114,
    reason="",
)
_OVERALL = {
    "num_rows": 1000,
    "small_accuracy": 0.82,
    "large_accuracy": 0.92,
    "cascade_accuracy": 0.917,
    "cascade_accuracy_interval": [0.90, 0.93],
    "difference": -0.003,
    "difference_interval": [-0.009, 0.002],
    "call_rate": 0.5,
    "calls_saved": 0.5,
    "cost_saved": 0.45,
    "forgetting_first": 0.02,
}
METRICS: dict[str, Any] = {
    "overall": _OVERALL,
    "tasks": {"products": _OVERALL, HOSTILE: _OVERALL},
    "accuracy_matrix": [[0.85, 0.60], [0.83, 0.80]],
    "frontier": {"call_rate": [1.0, 0.5, 0.0], "accuracy": [0.92, 0.917, 0.82], "threshold": [3.0, 0.5, -1.0]},
}
"""What an evaluation measured, in the form of `metrics.json`."""


def signals_gate(labels: tuple[str, ...], encoder: Encoder, texts: Sequence[str]) -> dict[str, Any]:
    """The parts of a bundle that keeps all by the gate `signals`, fitted on answers that are right at random."""
    rng = np.random.default_rng(0)
    features_ND = encoder.encode([Content(text) for text in texts])
    collaborator = Collaborator(features_ND.shape[1], len(labels), NetworkConfig(hidden=()), "kan", seed=0)
    judge_NC, small_NC = logits(collaborator.requires_grad_(False), features_ND)
    right_2N = rng.random((2, len(texts))) < [[0.6], [0.9]]
    inputs = GateInputs(judge_NC, small_NC, features_ND)
    fitted = form_named("signals").fit(GateRows(inputs=inputs, small_correct=right_2N[0], large_correct=right_2N[1]))
    return {
        "collaborator": collaborator,
        "label_names": labels,
        "policy": Policy(gate="signals", decision=KEEP_ALL),
        "gate_head": fitted.head,
        "large": OpenAiConfig(model="some-model", api_key_env=None),
        "large_head": None,
    }


class LastLabel:
    """A large model that is sure of the last label, and in trouble with texts that say so."""

    def __init__(self, num_labels: int) -> None:
        self._num_labels = num_labels

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer] | LargeUnavailable:
        """An answer to each item."""
        if any("trouble" in item.content.text for item in items):
            return LargeUnavailable("the large model failed: RayActorError")
        return [LargeAnswer(self._num_labels - 1, cost=Cost(seconds=0.5)) for _ in items]

    async def probe(self, timeout_s: float) -> LargeUnavailable | None:
        """It is always there."""
        return None


class Deaf:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def service_of(folder: Path, encoder: Encoder, config: ServeConfig, feedback_url: str | None) -> CascadeService:
    """What stands behind the interface, for one bundle."""

    async def load(release: Release, beside: CascadeVersion | None) -> CascadeVersion:
        bundle = Bundle.read(release.bundle)
        side = SmallSide(bundle, encoder, top_k=TOP_K)
        large: Any = LastLabel(len(bundle.label_names))
        pictures = PictureReader(encoder.read, config, MAX_PIXELS)
        guard = CertificateGuard(side, release.version, config.on_refuted)
        return CascadeVersion(side, Judging(encoder, pictures, config), large, config, release.version, guard)

    log = LogWriter(config.feedback, feedback_url) if feedback_url else None
    if log:
        await log.open()
    service = CascadeService(load, config, Breaker(BreakerConfig()), Deaf(), log, status_of)
    await service.stage(Release(version="films/7", bundle=folder))
    await service.become_ready()
    return service


@contextmanager
def page_of(folder: Path, encoder: Encoder, keys: Keys | None = None, feedback_url: str | None = None) -> Iterator[str]:
    """The address of a bundle's page, for as long as the block runs."""
    config = ServeConfig(judge_timeout_s=25.0, feedback=FeedbackConfig(timeout_s=30.0))  # a browser keeps it busy
    port = free_port()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        api = create_api(await service_of(folder, encoder, config, feedback_url), config, keys)
        servers.append(uvicorn.Server(uvicorn.Config(api, port=port, log_level="warning")))
        await servers[0].serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    wait_until(lambda: not thread.is_alive() or (servers and servers[0].started))
    assert thread.is_alive(), "the service did not start: the thread's exception is among the warnings"
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        servers[0].should_exit = True
        thread.join(20)

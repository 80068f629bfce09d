"""The served cascade without Ray: a service around one version, and metrics that nobody reads."""

import asyncio
import io
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import Policy
from kcm.inputs.content import IMAGE, TEXT, Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.models.judging import Judging, PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion, CertificateGuard
from pipelines.serve.config import BatchingConfig, ServeConfig
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release


def picture(width: int, height: int = 1) -> bytes:
    """A PNG file of this size."""
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


DOWN = LargeUnavailable("the large model failed: RayActorError")


class StubSide(SmallSide):
    """Keeps the text `keep` alone; its answer is always the same label. `bundle` changes what it is made of."""

    def __init__(self, policy: Policy | None = None, label: int = 0, **bundle: Any) -> None:
        names = bundle.pop("names", ("bad", "good"))
        known = {"task_names": ("movies",), "reads": TEXT, "certificates": {}, "digest": "abc"}
        known |= {"label_names": names, "answer_names": names, "large_identity": "large/7"}
        self.bundle: Any = SimpleNamespace(**known | bundle)
        self.policy, self.top_k, self._label = policy or Policy(), None, label

    def judge_features(self, features_ND: Any, inputs: Sequence[Input], encoded_s: float) -> list[Judgement]:
        features_D, probabilities_C = np.zeros(4, np.float32), np.array([0.8, 0.2])
        return [
            Judgement(self._label, probabilities_C, 0.8, 1.4, 1.0, item.content.text == "keep", 0.01, features_D)
            for item in inputs
        ]


def request_to(
    path: str,
    method: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = (),
    client: tuple[str, int] = ("10.0.0.1", 1),
    host: bytes = b"testserver",
) -> dict[str, Any]:
    """The ASGI scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", host), *headers],
        "client": client,
        "server": (host.decode(), 80),
    }


def sending(content: bytes, more_body: bool = False) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """The ASGI channel of a client that sends this much of its body at once, then nothing."""
    messages = [{"type": "http.request", "body": content, "more_body": more_body}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(3600)
        return messages.pop()

    return receive


async def statuses_of(app: Any, scope: dict[str, Any], receive: Any) -> list[int]:
    """The status of the response; none if the client has gone."""
    sent: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    await app(scope, receive, send)
    return sent


class StubEscalation:
    """Gives one outcome, but for the number of times that it is in trouble first; remembers what it was asked."""

    def __init__(self, outcome: LargeAnswer | LargeUnavailable, troubles: int = 0) -> None:
        self.outcome, self._troubles = outcome, troubles
        self.asked: list[tuple[list[Item], float]] = []

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer] | LargeUnavailable:
        self.asked.append((list(items), timeout_s))
        outcome = await self.probe(timeout_s) or self.outcome
        return outcome if isinstance(outcome, LargeUnavailable) else [outcome] * len(items)

    async def probe(self, timeout_s: float) -> LargeUnavailable | None:
        self._troubles -= 1
        return DOWN if self._troubles >= 0 else None


class Handle:
    """A deployment's handle that has `answer` called in this process, as the deployment would."""

    def __init__(self, answer: Callable[[list[Item], Release], Coroutine[Any, Any, list[LargeAnswer]]]) -> None:
        self._answer, self.answer = answer, self

    def remote(self, items: list[Item], release: Release) -> asyncio.Task[list[LargeAnswer]]:
        return asyncio.ensure_future(self._answer(items, release))


class NoMetrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Recorder:
    """Metrics that remember the arguments of each call, by the name of the method."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.calls[name].append(values)


class StubEncoder:
    """Zeros for every content; counts what it has encoded."""

    dim, identity, reads = 4, "encoder", TEXT | IMAGE

    def __init__(self, read: Callable[[Content], Content] = lambda content: content) -> None:
        self.read = read
        self.num_encoded = 0

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        self.num_encoded += len(inputs)
        return np.zeros((len(inputs), 4), np.float32)


def version_of(
    small_side: SmallSide,
    escalation: Any,
    config: ServeConfig,
    *,
    name: str = "5",
    max_waiting: int = 1024,
    decode: Callable[[Content], Content] = lambda content: content,
    encoder: Any = None,
    auditor: Any = None,
    judging: Judging | None = None,
) -> CascadeVersion:
    """A version that judges in batches of at most 8, by `judging` where there is one; pictures are read by `decode`."""
    pictures = PictureReader(decode, BatchingConfig(), max_pixels=1000)
    limits = BatchingConfig(max_batch_size=8)
    judging = judging or Judging(encoder or StubEncoder(), pictures, limits, max_waiting=max_waiting)
    guard = CertificateGuard(small_side, name, config.on_refuted)
    return CascadeVersion(small_side, judging, escalation, config, name, guard, auditor)


async def service_of(version: CascadeVersion, metrics: Any = None, log: LogWriter | None = None) -> CascadeService:
    """The service of a replica that has loaded `version`."""

    async def load(_: Release, beside: CascadeVersion | None) -> CascadeVersion:
        return version

    service = CascadeService(load, version.config, Breaker(BreakerConfig()), metrics or NoMetrics(), log, status_of)
    await service.stage(Release(version=version.name, bundle=Path("/bundles") / version.name))
    return service


@dataclass
class StubMetrics:
    """Remembers what was counted."""

    num_failed: int = 0
    most_unread: int = 0
    unread: int = 0
    statuses: list[int] = field(default_factory=list)

    def failed(self) -> None:
        self.num_failed += 1

    def set_unread(self, number: int) -> None:
        self.unread = number
        self.most_unread = max(self.most_unread, number)

    def turned_away(self, status: int) -> None:
        self.statuses.append(status)
